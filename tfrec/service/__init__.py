"""Answers of finished runs over HTTP: what ``tfrec serve`` starts."""
