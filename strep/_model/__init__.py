"""The nouns that everything speaks of: addresses, datagrams, blocks of audio, events, reports, exceptions."""
