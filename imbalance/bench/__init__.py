"""How fast the project is, each figure beside what it has to be measured against."""
