"""Train, shrink and judge Whisper students from the shards that `pipeline` writes."""
