"""What ties the stations together: a receiver of live media, and the replay of capture files."""
