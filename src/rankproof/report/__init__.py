"""What people read of attacks and audits: texts, tables, curves, strips, pages.

Nothing else imports matplotlib.
"""
