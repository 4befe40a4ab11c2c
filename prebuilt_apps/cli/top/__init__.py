"""`vfastml top`: a service as it works, in the terminal.

`/metrics` and `/load` of the admin listener (scrape.py, load_page.py, fetched by admin_client.py) become steps of
growth (rates.py), these become one View (view.py), which is drawn: live by app.py, once by once.py.
"""
