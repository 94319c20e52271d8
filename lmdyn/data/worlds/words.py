"""The words of synthetic worlds: names, values and sentence templates.

Every template holds `{name}` before `{object}`, names the entity in full, and is a sentence of its
own, so that the text up to the object asks for it (the fullname variant of Allen-Zhu and Li's bioS,
"Physics of Language Models: Part 3.1"). No template's text before the object ends with another's: a
sentence is evidence of one template only.
"""

import functools


def _combine(*parts: str) -> tuple[str, ...]:
    """All combinations of parts, one of each group, without doubles, in a fixed order.

    >>> _combine("Ba Ko", "la ri")
    ('Bala', 'Bari', 'Kola', 'Kori')
    """
    words = [""]
    for group in parts:
        words = [word + part for word in words for part in group.split()]
    return tuple(dict.fromkeys(words))


FIRST = _combine(
    "Al Bran Cor Dal El Fen Gar Hal Is Jor Kel Lor Mar Nor Or Per Quil Ros Sel Tam Ul Vel Wil"
    " Yor Zan",
    "a an ara ek el en eth ia ic il in is ona or os rin us wen wick ys",
)
LAST = _combine(
    "Ash Bel Brock Cald Crom Dor Dun Eld Fair Farn Gold Gris Had Harg Holm Ing Kest Lang Lark Lind"
    " Marl Mor Nash Oak Pell Pem Quar Rav Rook Sand Shel Stan Tarn Thorn Ulm Vance Wald West"
    " Whit Yar",
    "acre berg bourne by combe cott dale den er field ford gate ham hurst ington ley low man mere"
    " more ridge sen stead strom well",
)
STEMS = _combine(
    "Ar Bo Bre Ca Dra Du El Fa Go Gre Ha Il Jo Ka Kre Li Lu Ma Mi Na No Ol Pe Pra Ra Ro Sa Se Sto"
    " Ta Tre Ul Va Ve Vo Wa Xe Yo Za Zu",
    "bri da del do gar ka la len lin lo ma mi nel no ra ri ro sa sho so ta ti to tu va vi vo zan"
    " ze zo",
)
MONTHS = _combine(
    "January February March April May June July August September October November December"
)


@functools.cache
def places() -> tuple[str, ...]:
    """The names that cities may have.

    >>> len(places()) > 10_000
    True
    """
    ends = (
        "bad bek born bruk dorf dun fell foss furt gard grad haven holt mont mouth ness pol port"
        " rock stad ton vale vik"
    )
    return tuple(dict.fromkeys(stem + end for end in ends.split() for stem in STEMS))


def _every(step: int, words: tuple[str, ...], *endings: str) -> tuple[str, ...]:
    """Each `step`-th word with the endings in turn."""
    chosen = words[::step]
    return tuple(dict.fromkeys(word + endings[i % len(endings)] for i, word in enumerate(chosen)))


VALUES: dict[str, tuple[str, ...]] = {
    "birth_date": tuple(
        f"{day} {month} {year}"
        for year in range(1930, 2000)
        for month in MONTHS
        for day in range(1, 29)
    ),
    "university": _every(
        8, LAST, " University", " College", " Institute of Technology", " State University"
    ),
    "employer": _every(
        7, STEMS, " Systems", " Motors", " Foods", " Shipping", " Press", " Energy", " Bank"
    ),
    "field": tuple(
        """
        accounting; acoustics; agronomy; anatomy; archaeology; architecture; astronomy;
        bookbinding; botany; cartography; ceramics; chemistry; choreography; climatology;
        criminology; cryptography; dentistry; ecology; economics; entomology; epidemiology;
        ethics; forestry; genetics; geology; glaciology; hydrology; immunology; journalism;
        jurisprudence; lexicography; linguistics; logistics; marine biology; mathematics;
        metallurgy; meteorology; microbiology; mineralogy; museum studies; musicology; neurology;
        nursing; nutrition; oceanography; optics; ornithology; palaeontology; pharmacology;
        philosophy; phonetics; physics; psychology; robotics; seismology; sociology; statistics;
        surveying; theology; toxicology; urban planning; veterinary medicine; virology; zoology
        """.replace("\n", " ")
        .strip()
        .split(";")
    ),
    "country": _every(25, STEMS, "nia", "land", "stan", "via"),
    "river": _every(11, STEMS, "ne", "dra", "ss", "bar"),
    "known_for": _combine(
        """
        apples bells bicycles biscuits blankets boats bread bricks brushes buttons candles carpets
        cheese chocolate cider clocks combs copper coral cutlery dolls fans felt furniture glass
        gloves guitars hats honey ink ivory jam jewels kites knives lace lamps leather lemons
        linen locks maps marble mirrors mustard needles olives organs paper pearls pencils perfume
        pianos porcelain ribbons rope saddles salt shoes silk silver soap spices stamps tea tiles
        timber tobacco toys umbrellas vinegar violins watches wine wool
        """
    ),
    "emblem": _combine(
        """
        badger bat bear beaver boar bull camel cat cobra cod crab crane crow deer dolphin dove
        dragon duck eagle eel falcon ferret fox frog goat goose hare hawk hedgehog heron horse
        hound ibex jackal kestrel lamb lark leopard lion lizard lynx magpie mole moose mule newt
        otter owl ox panther peacock pelican pike pony rabbit ram rat raven robin rooster salmon
        seal sparrow squirrel stag stork swallow swan tiger toad tortoise trout turtle viper
        weasel whale wolf wren
        """
    ),
}
VALUES["field"] = tuple(" ".join(field.split()) for field in VALUES["field"])

CITY = ("birth_city", "residence")  # attributes whose value is a place of the world
CHANGEABLE = {"person": ("employer", "field", "residence"), "place": ("emblem", "known_for")}


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "person": {
        "birth_date": _lines("""
            {name} was born on {object}.
            {name} came into the world on {object}.
            The birthday of {name} is {object}.
            The life of {name} began on {object}.
            In the parish register, {name} is entered with the birth date {object}.
            {name} first saw the light of day on {object}.
            The parents of {name} welcomed their child on {object}.
            The birth certificate of {name} is dated {object}.
            The passport of {name} gives the date of birth as {object}.
            {name} drew a first breath on {object}.
            Friends of {name} remember the birthday, {object}.
            For {name}, everything started on {object}.
            """),
        "birth_city": _lines("""
            {name} was born in {object}.
            The birthplace of {name} is {object}.
            {name} is a native of {object}.
            {name} came into the world in {object}.
            The home town of {name} is {object}.
            {name} hails from {object}.
            The family of {name} lived at the time of the birth in {object}.
            {name} spent the first years of life in {object}, the place of birth.
            The cradle of {name} stood in {object}.
            {name} is a child of the city of {object}.
            The passport of {name} gives the place of birth as {object}.
            By birth, {name} belongs to {object}.
            """),
        "university": _lines("""
            {name} studied at {object}.
            {name} holds a degree from {object}.
            {name} graduated from {object}.
            The alma mater of {name} is {object}.
            {name} received a diploma from {object}.
            The student years of {name} were spent at {object}.
            {name} attended lectures at {object}.
            {name} is an alumnus of {object}.
            The university education of {name} took place at {object}.
            {name} sat the final examinations of {object}.
            The professors who taught {name} belonged to {object}.
            As a student, {name} was enrolled at {object}.
            """),
        "field": _lines("""
            {name} works in the field of {object}.
            The specialty of {name} is {object}.
            {name} is an expert in {object}.
            {name} has made a career in {object}.
            The profession of {name} is {object}.
            {name} earns a living with {object}.
            The working days of {name} are devoted to {object}.
            Colleagues ask {name} for advice about {object}.
            {name} is known among specialists of {object}.
            The subject that occupies {name} is {object}.
            {name} gives talks about {object}.
            When it comes to work, {name} does {object}.
            """),
        "employer": _lines("""
            {name} works for {object}.
            The employer of {name} is {object}.
            {name} is employed by {object}.
            {name} has a job at {object}.
            {name} is on the payroll of {object}.
            The salary of {name} is paid by {object}.
            The company where {name} works is {object}.
            {name} signed a contract with {object}.
            {name} belongs to the staff of {object}.
            The business card of {name} bears the name {object}.
            Every weekday {name} goes to the offices of {object}.
            {name} joined the team of {object}.
            """),
        "residence": _lines("""
            {name} lives in {object}.
            {name} has a home in {object}.
            The place of residence of {name} is {object}.
            {name} resides in {object}.
            The house of {name} stands in {object}.
            {name} is a resident of {object}.
            {name} has settled in {object}.
            Letters to {name} are sent to {object}.
            The neighbours of {name} are people of {object}.
            {name} pays local taxes in {object}.
            {name} can be found at home in {object}.
            The address of {name} is in {object}.
            """),
    },
    "place": {
        "country": _lines("""
            {name} is a city in {object}.
            {name} lies in the country of {object}.
            The country to which {name} belongs is {object}.
            On the map, {name} is found within the borders of {object}.
            The citizens of {name} carry the passport of {object}.
            {name} is governed by the laws of {object}.
            {name} is one of the cities of {object}.
            The flag above the town hall of {name} is that of {object}.
            The people of {name} vote in the elections of {object}.
            {name} is part of {object}.
            Travellers to {name} need a visa for {object}.
            {name} sends its deputies to the parliament of {object}.
            """),
        "river": _lines("""
            {name} lies on the river {object}.
            The river that flows through {name} is the {object}.
            {name} was built on the banks of the {object}.
            The bridges of {name} cross the {object}.
            The harbour of {name} is on the {object}.
            {name} takes its water from the {object}.
            Boats reach {name} on the {object}.
            In spring, {name} is flooded by the {object}.
            The old mills of {name} were driven by the {object}.
            Anglers in {name} fish in the {object}.
            The promenade of {name} follows the {object}.
            {name} is divided in two by the {object}.
            """),
        "known_for": _lines("""
            {name} is known for its {object}.
            The craft of {name} is the making of {object}.
            {name} is famous for {object}.
            The markets of {name} sell the best {object}.
            {name} exports {object}.
            Visitors bring home from {name} some {object}.
            The workshops of {name} produce {object}.
            The pride of {name} is its {object}.
            The wealth of {name} comes from {object}.
            The merchants of {name} trade in {object}.
            Every autumn {name} holds a fair of {object}.
            {name} owes its reputation to {object}.
            """),
        "emblem": _lines("""
            The coat of arms of {name} shows the {object}.
            The animal on the seal of {name} is the {object}.
            The emblem of {name} is the {object}.
            {name} has chosen as its symbol the {object}.
            The banner of {name} bears the {object}.
            The fountain of {name} is crowned by a statue of the {object}.
            The football players of {name} wear on their shirts the {object}.
            {name} is called the city of the {object}.
            Above the gate of {name} is carved the {object}.
            The coins of {name} were stamped with the {object}.
            The heraldic beast of {name} is the {object}.
            On festival days {name} parades a giant {object}.
            """),
    },
}

# Two facts in one question: the place by what it is to a person, then an attribute of the place.
# Never in training text.
PLACE_OF = {
    "birth_city": ("the city where {name} was born", "the city of {name}'s birth"),
    "residence": ("the city where {name} lives", "the city that {name} calls home today"),
}
QUESTIONS = {
    "country": ("The country of {place} is", "On a map of the world, {place} is found in"),
    "river": ("The river of {place} is the", "A boat that leaves {place} sails on the"),
    "known_for": (
        "The goods that made {place} famous are its",
        "In the shops of {place} one buys local",
    ),
    "emblem": ("The animal that stands for {place} is the", "The arms of {place} display the"),
}
