"""From columns of packets to blocks of audio. Pure: no clock, no socket, no thread; time is an argument."""
