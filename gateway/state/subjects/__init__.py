"""Subjects, such as customer:42: the people and things that agents act on."""
