"""Speech in one stream: where it begins and ends, and utterances cut out of it. Pure, but for Silero's threads."""
