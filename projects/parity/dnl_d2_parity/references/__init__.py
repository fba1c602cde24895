"""Public code bases: their own models, or their networks written down anew under their names.

What is written down anew shares no code with ``dnl_d2``.
"""
