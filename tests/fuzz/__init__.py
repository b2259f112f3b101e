"""Hostile datagrams through engine, sinks and analyzers in virtual time, with real calls beside them.

``wire``     datagrams as columns, and their bytes
``actors``   who sends them: streams with every field mutated, and templates of known attacks
``calls``    the real calls, and what is known of them
``machine``  a run, and what must hold at every step of it
``shrink``   the fewest datagrams that still do it

``python -m fuzz --seeds 0-99`` (with ``tests`` on the path) runs more of them than pytest does.
"""
