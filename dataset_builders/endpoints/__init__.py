"""HTTP client of OpenAI-compatible model endpoints."""
