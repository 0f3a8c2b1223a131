"""HTML page of evaluation transcripts."""
