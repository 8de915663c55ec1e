"""`verydeep serve`: a web page and a JSON API."""
