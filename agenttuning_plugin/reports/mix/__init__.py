"""The report of a mix: numbers as JSON, and one page that shows them."""
