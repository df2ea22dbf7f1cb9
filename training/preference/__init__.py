"""Personal preference: who chose what, and the embedding that says what somebody likes."""
