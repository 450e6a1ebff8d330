"""Claims: who works on a subject now, with which priority, until when, and how long others wait afterwards."""
