"""The subjects of the generated tables.

A theme is a line group of `tables | key | column | ...`:

- tables: names the table may have.
- key: `name: FIRST WORDS + LAST WORDS`; its values are all pairs, so that no name can be memorised.
- text column: `name: value, value, ...`.
- number column: `name: low..high`; a decimal point makes it a column of tenths.

No table name and no column name occurs in two splits. A score on the test themes therefore shows
that the model reads the headers instead of remembering them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A text column.

    Attributes:
        name: Its header.
        values: Its possible values.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """A column of whole numbers or of tenths.

    Attributes:
        name: Its header.
        low: Smallest value; in tenths if `tenths`. At least 1, so that no answer is 0.
        high: Largest value, in the same unit; at least 9 above `low`.
        tenths: Whether the unit is a tenth.
    """

    name: str
    low: int
    high: int
    tenths: bool

    def value(self, units: int) -> int | float:
        """Convert a count of units to the column's value."""
        return units / 10 if self.tenths else units


@dataclass(frozen=True, slots=True)
class Theme:
    """Tables about one subject.

    Attributes:
        tables: Names the table may have.
        key: The column whose values are unique within a table.
        texts: Other columns of text, at least two.
        numbers: Columns of numbers, at least two.
    """

    tables: tuple[str, ...]
    key: TextColumn
    texts: tuple[TextColumn, ...]
    numbers: tuple[NumberColumn, ...]


_TRAIN = """
boats, harbor_boats | boat_name: Sea Blue Iron Swift Merry + Lark Heron Fox Star Queen
| home_port: Lisbon, Bergen, Galway, Brest | hull_color: white, navy, crimson, teal
| crew_size: 2..40 | hull_length: 6.0..30.0

bakeries, city_bakeries | bakery_name: Golden Rustic Corner Sunny Village + Crust Oven Grain Loaf
| bread: rye, sourdough, brioche, ciabatta | district: Northside, Old Town, Riverside, Hilltop
| oven_count: 1..15 | daily_loaves: 80..900

employees, staff | employee_name: Alma Bruno Carla Derek Edith + Novak Ortega Price Quinn Rossi
| department: sales, finance, support, legal | office_city: Denver, Madrid, Osaka, Leeds
| salary: 2800..9000 | vacation_days: 10..35

mountains, peaks | peak_name: Gray Broken White Thunder Lone + Horn Tooth Dome Spire
| mountain_range: Alps, Andes, Rockies, Tatras | rock_type: granite, basalt, gneiss, slate
| elevation: 1200..6800 | climbers: 12..950

books, library_books | book_title: Silent Hidden Last Burning Paper + Garden Letter Kingdom Winter
| genre: mystery, fantasy, history, poetry | publisher: Orbit, Lantern, Northgate, Quill
| page_count: 90..720 | copies: 1..30

players, team_players | player_name: Ivan Jonas Karim Leo Marco + Silva Tanaka Ulrich Vega Weber
| position: goalkeeper, defender, midfielder, striker | club: Rovers, United, Athletic, Wanderers
| goals: 1..38 | shirt_number: 2..99

products, shop_items | product_name: Compact Travel Garden Folding + Lamp Chair Kettle Mirror Shelf
| brand: Acme, Norden, Vivo, Tork | material: oak, plastic, aluminum, bamboo
| price: 3.5..95.0 | stock: 4..260

students, pupils | student_name: Nina Oscar Petra Rafael Sonia + Adams Brandt Costa Dubois
| school_house: Falcon, Otter, Badger, Raven | subject: algebra, biology, drama, geography
| exam_score: 35..100 | absences: 1..22

trains, railway_trains | train_name: Coastal Night Alpine Royal Desert + Express Runner Comet Arrow
| destination: Vienna, Prague, Milan, Zurich | operator: TransRail, Metroline, Unirail, Skyrail
| seat_count: 90..640 | delay_minutes: 1..75

gardens, public_gardens | garden_name: Willow Maple Hidden Queens Mill + Court Meadow Grove Terrace
| flower: tulip, dahlia, peony, iris | gardener: Hugo, Ingrid, Jasper, Klara
| area_acres: 1.0..28.0 | bench_count: 3..60

songs, tracks | song_title: Midnight Velvet Broken Neon Summer + Highway Echo Mirror Rain
| artist: The Owls, Maya Lund, Rio Nine, Slow Kites | mood: calm, joyful, gloomy, bold
| play_count: 150..9800 | duration_seconds: 95..420

hotels, inns | hotel_name: Grand Park Harbor Crown Amber + Palace Lodge Suites House
| town: Bath, Siena, Bruges, Salzburg | hotel_owner: Marlow, Petrov, Lindgren, Okafor
| room_count: 8..320 | nightly_rate: 45..410

dogs, kennel_dogs | dog_name: Little Big Lucky Sir Miss + Rex Bella Duke Coco Shadow
| breed: beagle, poodle, collie, boxer | coat: black, brown, spotted, cream
| age_months: 3..160 | weight_kg: 4.0..48.0

patients, clinic_patients | patient_name: Tara Umar Viola Walter Yusuf + Evans Fischer Gomez Hansen
| ward: cardiology, surgery, pediatrics, neurology | physician: Dr Lane, Dr Cho, Dr Abbas, Dr Moss
| visit_count: 1..24 | heart_rate: 52..118

movies, films | movie_title: Crimson Final Lost Electric Distant + Horizon Empire Signal Promise
| director: Keller, Amari, Fontaine, Bishop | studio: Bluebird, Pinnacle, Redwood, Mosaic
| runtime_minutes: 78..192 | awards: 1..19

warehouses, depots | warehouse_name: East West Central Airport Canal + Depot Yard Hub Store
| region: north, south, coastal, inland | manager: Iris Bell, Omar Diaz, Lena Koch, Paul Reid
| shelf_count: 40..880 | pallets: 15..490

satellites, orbiters | satellite_name: Polar Lunar Solar Terra Astro + Scout Watcher Probe Beam
| agency: Orbitco, Stellar, Nimbus, Cosmos | purpose: weather, imaging, relay, navigation
| orbit_height: 300..2000 | launch_year: 1985..2023

cafes, coffee_bars | cafe_name: Cozy Urban Lazy Copper Daily + Bean Cup Kettle Corner
| street: Elm Street, Mill Lane, King Road, Park Avenue | roast: light, medium, dark, espresso
| table_count: 4..32 | cup_price: 1.5..6.5

farms, family_farms | farm_name: Green Stony Clover Misty Oakwood + Acres Hollow Ridge Fields
| crop: barley, potatoes, apples, maize | county: Kent, Devon, Essex, Surrey
| harvest_tons: 12..640 | tractor_count: 1..16

paintings, artworks | painting_title: Blue Quiet Morning Yellow + Harvest Bridge Portrait Storm
| painter: Moreau, Castelli, Hartman, Ostrov | gallery: Louvain, Atrium, Belvoir, Kunsthal
| canvas_width: 20..260 | appraisal: 150..9500
"""

_DEV = """
bridges, river_bridges | bridge_name: Stone Copper Bishop Tower Mile + Arch Span Pass Causeway
| river: Elbe, Loire, Tagus, Vistula | bridge_design: suspension, beam, truss, cantilever
| span_meters: 40..980 | lane_count: 1..12

cheeses, dairy_goods | cheese_name: Smoked Aged Creamy Mountain Salty + Gouda Brie Cheddar Feta
| milk_source: cow, goat, sheep, buffalo | cheesemaker: Bellini, Jansen, Dupont, Mccoy
| aging_weeks: 2..110 | fat_grams: 9.0..38.0

podcasts, audio_shows | podcast_name: Curious Plain Deep Odd Weekly + Minds Talk Stories Facts
| presenter: Anika, Boris, Chloe, Dmitri | topic: science, cooking, travel, chess
| episode_count: 6..420 | listeners: 120..8700

volcanoes, craters | volcano_name: Ashen Old Fire Smoking Great + Cone Caldera Summit Giant
| island: Java, Sicily, Luzon, Maui | status: active, dormant, extinct, restless
| eruption_count: 1..48 | crater_depth: 30..900
"""

_TEST = """
museums, exhibit_halls | museum_name: National Maritime Modern Folk + Collection Archive Rotunda
| curator: Haruto, Beatriz, Solveig, Tomasz | exhibit: fossils, armor, coins, textiles
| yearly_visitors: 200..9900 | ticket_fee: 2.5..35.0

flights, departures | flight_name: Alpha Bravo Delta Echo Sierra + Seven Nine Eleven Twenty
| airline: Skyways, Aerona, Jetlink, Polaris Air | terminal: A1, B2, C3, D4
| passenger_count: 35..410 | luggage_weight: 300..7900

robots, factory_robots | robot_name: Mega Nano Turbo Servo Titan + Arm Bot Unit Crab
| maker: Cyberdyn, Robonix, Autotek, Mechano | duty: welding, packing, painting, sorting
| battery_hours: 2..48 | sensor_count: 3..64

wines, cellar_wines | wine_name: Chateau Domaine Casa Villa Monte + Rouge Doro Verde Luna Alto
| grape: merlot, riesling, malbec, syrah | vineyard: Valmont, Serrano, Kestrel, Pinecrest
| vintage: 1978..2022 | bottle_cost: 6.5..99.0

lighthouses, beacons | lighthouse_name: Gull Cape Storm Seal Pelican + Point Rock Light Head
| coast: Baltic, Adriatic, Pacific, Arctic | keeper: Eamon, Freya, Gunnar, Hilda
| tower_height: 9..88 | lamp_watts: 250..4000

dishes, menu | dish_name: Spicy Roasted Grilled Crispy Sweet + Noodles Salmon Tofu Dumplings
| cuisine: Thai, Greek, Mexican, Korean | chef: Aiko, Matteo, Priya, Stefan
| calories: 180..1150 | prep_minutes: 8..95

planets, exoplanets | planet_name: Zor Kepla Vex Arden Nova + Prime Minor Beta Secundus
| star_system: Vega, Altair, Rigel, Deneb | surface: rocky, icy, gaseous, oceanic
| moon_count: 1..45 | day_hours: 7..390

bicycles, rental_bikes | bicycle_name: Rapid Gravel City Trail Aero + Rider Sprint Cruiser Glide
| frame: steel, carbon, titanium, alloy | mechanic: Wanda, Xavier, Yara, Zeno
| gear_count: 3..27 | mileage: 140..8800
"""

_SPLITS = {"train": _TRAIN, "dev": _DEV, "test": _TEST}


@cache
def themes(split: str) -> tuple[Theme, ...]:
    """Return the themes of "train", "dev" or "test"."""
    return tuple(_parse_theme(block) for block in _SPLITS[split].strip().split("\n\n"))


def _parse_theme(block: str) -> Theme:
    tables, key, *columns = (part.strip() for part in block.replace("\n", " ").split("|"))
    parsed = [_parse_column(column) for column in columns]
    return Theme(
        tables=tuple(tables.split(", ")),
        key=_parse_key(key),
        texts=tuple(column for column in parsed if isinstance(column, TextColumn)),
        numbers=tuple(column for column in parsed if isinstance(column, NumberColumn)),
    )


def _parse_key(text: str) -> TextColumn:
    name, _, words = text.partition(": ")
    first, last = (part.split() for part in words.split(" + "))
    return TextColumn(name, tuple(f"{a} {b}" for a, b in product(first, last)))


def _parse_column(text: str) -> TextColumn | NumberColumn:
    name, _, values = text.partition(": ")
    if ".." not in values:
        return TextColumn(name, tuple(values.split(", ")))
    low, high = values.split("..")
    tenths = "." in low
    scale = 10 if tenths else 1
    return NumberColumn(name, round(float(low) * scale), round(float(high) * scale), tenths)
