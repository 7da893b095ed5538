"""The OS-independent house of ptyguard; see docs/DESIGN.md for its floors."""
