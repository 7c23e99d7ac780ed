"""Reports: tables, figures and one page about finished runs."""
