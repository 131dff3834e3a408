"""How results are shown: tables, plots, LaTeX, and one page with every wrong answer."""
