"""What objects look like in a notebook: one card of HTML each, whole in itself, without scripts.

Ink and rules take the notebook's own colours, so that cards fit light and dark themes; tables and folds stay readable
where styles are dropped. Everything foreign is escaped where it enters (`html.tag`). A view costs no more than printing
and never raises: what cannot be told is left out.

This package knows no other part of optrode: views ask the objects that they are given, and any layer may use them.
"""
