"""Recorded situations, played from outside: one daemon of a Calico node in a small world of scripted neighbours, compared with what confd and BIRD
did there (fixtures/confd/README.md has the form)."""
