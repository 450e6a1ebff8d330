"""Subjects, such as customer:42: what the gateway knows of whom agents act on."""
