"""Speech in one stream: a detector for it, and utterances cut by what it says. Pure."""
