"""An adversary over real sockets: real calls with known audio, hostile senders of every kind beside them.

``kinds``   what hostile senders send
``wire``    real calls, and the two of them on their way at a steady rate
``targets`` what they are sent to: capture with and without workers, and replay
``check``   what the real calls' files hold, against the truth

``python -m attacks`` (with ``tests`` on the path) prints a table: who lost what, and what a hostile packet cost.
"""
