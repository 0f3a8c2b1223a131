"""Report of a mix: figures as JSON, and an HTML page."""
