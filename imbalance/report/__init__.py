"""Make tables, figures and an HTML page about runs, and keep the results of finished runs."""
