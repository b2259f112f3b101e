"""From payloads to samples: one row of facts for each codec, and what decodes and encodes them."""
