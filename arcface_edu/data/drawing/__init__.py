"""How `faces.py` draws: anatomy, hair and paint make a person's maps (`relief`), the studio photographs them."""
