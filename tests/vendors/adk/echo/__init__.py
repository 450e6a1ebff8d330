"""An ADK app."""

from . import agent as agent
