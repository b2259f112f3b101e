"""From payloads to samples: one row of facts for each codec, decoders and encoders."""
