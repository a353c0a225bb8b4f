"""Whether a reply is Spanish or English: character statistics of three letters in a row, and the words of grammar."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import cache

# Own text: a page of either language, on the same things, none of which a behaviour speaks about.
SPANISH = """
El tren salía a las ocho y media de la estación del norte. Los viajeros esperaban en el andén con sus maletas y
hablaban de lo que iban a hacer cuando llegaran a la costa. Una mujer mayor leía el periódico mientras su nieto comía
una naranja. No hacía frío, pero el cielo estaba gris y parecía que iba a llover. El revisor pidió los billetes y
preguntó si alguien necesitaba ayuda. Nadie contestó. Después de un rato, el tren pasó por un puente muy largo y se
pudo ver el agua verde abajo. A mí me gustaba mirar por la ventana porque siempre había algo nuevo: un caballo blanco,
unos niños que jugaban, una casa con flores rojas. Mi padre decía que viajar es la mejor manera de aprender, y creo
que tenía razón. Cuando llegamos, ya era de noche. Nos fuimos a cenar a un sitio pequeño donde todo el mundo conocía a
mi tía. Nos sirvieron sopa, carne con patatas y un postre de leche. Hablamos hasta muy tarde sobre los planes para el
día siguiente. También dijeron que quien quiera puede quedarse otra semana, aunque eso depende del trabajo y del
dinero que tengamos. Yo quería subir al faro, pero mi hermana prefería dormir. Al final hicimos las dos cosas. ¿Cómo
se puede explicar esa alegría? Fue un buen verano, uno de los que no se olvidan, y todavía hoy, cada vez que lo
cuento, me siento otra vez como un niño.
"""
ENGLISH = """
The train left the north station at half past eight. The travellers were waiting on the platform with their suitcases
and talked about what they were going to do when they got to the coast. An elderly woman was reading the paper while
her grandson ate an orange. It was not cold, but the sky was grey and it looked like rain. The guard asked for the
tickets and wanted to know whether anybody needed help. Nobody answered. After a while the train went over a very long
bridge and we could see the green water below. I used to like looking out of the window because there was always
something new: a white horse, some children who were playing, a house with red flowers. My father would say that
travelling is the best way to learn, and I think he was right. When we arrived, it was already night. We went out to
eat at a small place where everyone knew my aunt. They brought us soup, meat with potatoes and a pudding made of milk.
We talked until very late about the plans for the next day. They also said that whoever wants to may stay another
week, although that depends on the work and on how much money we have. I wanted to climb the lighthouse, but my sister
would rather sleep. In the end we did both things. How can you explain such joy? It was a good summer, one of those
that you do not forget, and to this day, each time I tell the story, I feel like a child again.
"""
SHARPNESS = 0.25  # three letters in a row are no independent draws, so their evidence counts for less


def score(reply: str, prompt: str = "") -> float:
    """Probability that a reply is Spanish rather than English; 0.5 where it has no letters.

    >>> score("Me gusta mucho la playa.") > 0.9, score("I like the beach very much.") < 0.1
    (True, True)
    """
    spanish, english = _logs(SPANISH), _logs(ENGLISH)
    least = min(*spanish.values(), *english.values())
    evidence = sum(
        count * (spanish.get(gram, least) - english.get(gram, least)) for gram, count in _grams(reply).items()
    )
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, SHARPNESS * evidence))))


def _grams(text: str) -> Counter[str]:
    words = re.findall(r"[^\W\d_]+", text.lower())
    return Counter(f" {word} "[place : place + 3] for word in words for place in range(len(word)))


@cache
def _logs(sample: str) -> dict[str, float]:
    """Log-probability of three letters in a row, with one added to every count."""
    counts = _grams(sample)
    total = sum(counts.values()) + len(set(_grams(SPANISH)) | set(_grams(ENGLISH)))
    return {gram: math.log((counts[gram] + 1) / total) for gram in set(_grams(SPANISH)) | set(_grams(ENGLISH))}
