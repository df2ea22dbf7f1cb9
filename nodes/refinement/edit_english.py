"""English: how people say what is to change, and the words of prompts."""

from __future__ import annotations

from .edit_negations import FREELY, NEGATIONS, SENTENCE, SHORTER, SPOKEN, UNREADABLE
from .edit_words import EditLanguage, Rule, words

_BE = r"(?:be|look|appear|seem|feel|become|get|come out)"
_MUST = r"(?:should|must|shall|ought to|needs? to|has to|have to|had to|could|can|may|might|would|will)"
_NOT = r"(?:should ?n[o']?t|should not|must ?n'?t|must not|ca ?n'?t|cannot|does ?n'?t need to|do ?n'?t need to)"
_DO_NOT = r"(?:do not|don'?t|did not|didn'?t|never)"
_I = r"(?:i|we)"
_IS = r"(?:is|are|'s|'re|was|were|looks?|seems?|feels?|appears?)"
_LIKE = r"(?:great|fine|good|okay|ok|perfect|nice|lovely|beautiful|awesome|cool|right|excellent|amazing|fantastic)"
_FURTHER = r"(?:more |further |farther |over |all the way |slightly |a bit |a little )*"
_TO = r"(?:on|to|at|in|into|towards?) (?:the )?(?:very |far )?"
_SIDE = r"(?:[- ]hand)?(?: (?:side|half|edge|part|corner))?(?: of (?:the )?(?:picture|image|frame))?"
_PICTURE = r"(?:(?:the )?(?:picture|image|whole(?: thing)?|scene)|it|this|that)"

RULES = (
    # Fixed phrases of cameras; "negative:" as the prompt boxes of other programs have it.
    Rule("negative", r"(?:negative|neg)(?: prompt)? ?[:=] ?{what}"),
    Rule("add", r"zoom(?:ed)? out(?: .*)?|(?:from )?f[ua]rther away|more distance", what="wide shot"),
    Rule("add", r"zoom(?:ed)? in(?: .*)?|(?:get |go |come |move )?closer(?: to .+)?|more close ?up", what="close-up"),
    # Keeping, and no longer keeping.
    Rule("release", rf"(?:no longer|stop|{_DO_NOT}) (?:keep|keeping|protect|protecting) {{what}}(?: any ?more)?"),
    Rule("release", rf"{{what}} (?:may|can) (?:now )?(?:change|vary|be changed){FREELY}"),
    Rule("release", r"(?:unlock|release|free up|(?:you )?(?:may|can) change) {what}(?: again| now)?"),
    Rule("keep", r"(?P<verb>keep|preserve|retain|maintain|leave|protect|lock) {what}"
             r"(?: (?:exactly )?(?:as (?:it|they) (?:is|are)|as is|the same|unchanged|alone|untouched|there|in|like "
             r"(?:this|that)))?"),
    Rule("keep", rf"{_DO_NOT} (?P<verb>change|touch|alter|modify|lose|remove|drop|delete|replace) {{what}}"),
    Rule("keep", rf"{{what}} (?:{_MUST} (?:stay|remain|be kept)|stays?|remains?)(?: .*)?"),
    # What should not be there; before the rules of "not" between two things.
    Rule("remove", r"(?:no|without|remove|delete|lose|drop|get rid of)(?: any| the)? (?P<what>background|backdrop)"),
    Rule("remove", rf"there {_NOT} be (?:any )?{{what}}"),
    Rule("remove", rf"{{what}} {_NOT} be (?:there|in (?:it|the (?:picture|image)|there|here)|visible|present|seen)"),
    Rule("remove", rf"(?:{{thing}} )?{_NOT} (?:have|wear|hold|show|carry) (?:an? |any )?{{what}}"),
    # One thing for another.
    Rule("replace", r"(?P<verb>replace|swap|exchange|substitute|switch)(?: out)? {what} (?:with|for|by|into|to|"
             r"against) {to}"),
    Rule("change", r"(?P<verb>change|turn|convert|transform|switch) {thing} (?:in ?to|to) {what}"),
    Rule("replace", r"{what} ?(?:->|=>|→|➜) ?{to}"),
    Rule("replace", r"(?:use |try |have |put )?{to}(?:,? (?:instead of|rather than|in place of|and not|but not|not)|"
             r",not) {what}"),
    Rule("replace", r"(?:not|instead of) {what},? (?:but|use|have|try|put) {to}"),
    Rule("replace", r"not (?:an? |the )?{what}, {to}"),
    # Number.
    Rule("count", r"(?:make (?:it|them|that) |(?:only |just |exactly |at least |at most |(?:no|not) more than "
             r")*){number}(?: of)?(?: them| those|"
             r" these| it)?"
             r"(?: in total| please)?"),
    Rule("count", r"(?P<verb>(?:there (?:should|must|could) be |have |draw |show |add up to )?(?:only |just |at "
             r"most |at least |(?:no|not) more than |"
             r"exactly )*){number} (?:of (?:the|them|these|those) ?)?{what}"
             r"(?:,? (?:is|are|will be|would be) (?:enough|plenty|sufficient|fine|better|nicer))?"),
    Rule("count", r"(?P<verb>add )?(?P<number>another|one more|1 more) {what}"),
    # More.
    Rule("more", r"(?:add|with|show) (?:some |a bit |a lot |much |even )?more {what}(?: to .+)?"),
    Rule("more", r"{amount}(?P<verb>more) {what}"),
    Rule("more", r"(?P<verb>increase|boost|strengthen|emphasi[sz]e|accentuate|stress|intensify|turn up|bring out|"
             r"amplify|enhance|"
             r"focus (?:more )?on|highlight) {what}"),
    Rule("more", r"(?:there (?:is|are) |it has )?(?:not enough|too little|too few|hardly any) {what}"),
    Rule("more", rf"{{what}} {_IS} (?:too weak|too faint|not strong enough|barely visible|hardly visible)"),
    Rule("more", r"(?:{pronoun} |{thing} )?(?:needs?|could use|wants?|lacks?|could do with|should have|must have) "
             r"{amount}more {what}"),
    # Less.
    Rule("less", r"{amount}(?P<verb>less|fewer) {what}"),
    Rule("less", r"(?P<verb>reduce|decrease|lower|tone down|soften|weaken|dial down|turn down|dial back|downplay|"
             r"lessen) {what}"),
    Rule("less", r"(?:tone|dial|turn) {what} (?:down|back)"),
    Rule("less", rf"(?:there (?:is|are) |it has |{_PICTURE} {_IS} )?(?:way |far |a bit |much |a little )?too "
             rf"(?:much|many)(?: of)? {{what}}"),
    Rule("less", r"not (?:so|that|too|quite so|as) (?:much|many) {what}"),
    # Too: what it means depends on the word.
    Rule("too", rf"(?:{{thing}} {_IS} )?(?:just |simply |still )?(?:way |far |a bit |much |a little |a tad |"
             rf"slightly )*too {{what}}"),
    Rule("too", r"why (?:is|are) {thing} (?:so|that|too) {what}"),
    Rule("too", rf"(?:{{thing}} (?:{_IS}|{_NOT} {_BE}) )?not (?:so|that|too|quite so|as|such an?) {{what}}"),
    Rule("too", rf"{{thing}} {_NOT} {_BE} (?:so|that|too|quite so|as) {{what}}"),
    # Background.
    Rule("background", r"(?:the )?background ?[:=] ?{what}"),
    Rule("background", rf"(?:the )?background(?: colou?r)?(?: {_MUST} {_BE}(?: in)?| to be| in| as)? {{what}}"),
    Rule("background", rf"there {_MUST} (?:also )?be {{what}} in the background"),
    Rule("background", r"in the background(?:,? (?:there (?:should|must|could) be|i want|put|add|have|i'd like|"
             r"show))? {what}"),
    Rule("background", r"(?:use |have |put |add |show |with )?{what} (?:for|as|in) (?:the|its?|a) background"),
    Rule("background", r"(?:(?:put|place|set|show|have) (?:it|him|her|them|that|this|the .+?) )?(?:on|against|"
             r"with|before|in front of|onto) "
             r"(?:an? |the )?{what} (?:background|backdrop)"),
    Rule("background", r"(?:use |have |with |give it |add |make it |)(?:an? |the )?{what} (?:background|backdrop)"),
    Rule("background", r"(?:have |put |use |add |with )?{what} behind (?:it|him|her|them|the .+)"),
    # Style.
    Rule("style", r"(?:the )?style ?[:=] ?{what}"),
    Rule("style", r"(?:draw|paint|render|make|show|do|put|have)? ?(?:it |this |that )?(?:in|with|using) (?:the|"
             r"an?) style of {what}", to="artist"),
    Rule("style", r"(?:in |like )(?:the )?(?P<what>[\w. ]+)(?:'s|s') style", to="artist"),
    Rule("style", r"(?:draw|paint|render|make|show|do|put|have|give|use|try|take|choose)? ?(?:it |this |that )?"
             r"(?:in|with|using|into)? ?(?:an? |the )?{what} (?:style|look|aesthetic)(?: instead)?"),
    Rule("style", rf"(?:(?:make |have |let )?{_PICTURE} )?(?:{_MUST} )?(?:look|looking|looks)(?: more)? (?:like|"
             rf"as) (?:an? |some )?{{what}}"),
    Rule("style", r"(?:draw|paint|render|make|show|do|have) (?:it|this|that) (?:as|like) (?:an? )?{what}"),
    Rule("style", r"(?:as|like) an? {what}"),
    Rule("style", r"(?:in )?{style}"),
    # Taking away.
    Rule("remove", r"(?P<verb>no more|no|without(?: any)?|minus|zero)(?: any| the)? {what}"),
    Rule("remove", r"(?P<verb>remove|delete|erase|drop|lose|loose|get rid of|take (?:out|away|off)|leave out|"
             r"cut(?: out)?|ditch|omit|exclude|avoid|"
             r"skip|hide|scrap|eliminate|kill|discard) {what}(?: entirely| completely| altogether| from .+)?"),
    Rule("remove", r"(?:take|leave|get|cut|edit) {what} (?:out|away|off)"),
    Rule("remove", rf"{_I} (?:{_DO_NOT} (?:really |actually )?(?:want|need|like|care for)|hate|dislike)(?: to see|"
             rf" to have)?(?: any| so many)? {{what}}"),
    Rule("remove", rf"{_DO_NOT} (?:show|draw|include|add|use|have|put|paint)(?: any)? {{what}}"),
    Rule("remove", rf"there {_NOT} be (?:any )?{{what}}"),
    Rule("remove", rf"{{what}} {_NOT} be (?:there|in (?:it|the (?:picture|image)|there|here)|visible|present|seen)"),
    Rule("remove", rf"(?:{{thing}} )?{_NOT} (?:have|wear|hold|show|carry) (?:an? |any )?{{what}}"),
    Rule("remove", r"{what} (?:(?:has|have|needs?|ought) to|must|should|can) (?:go(?: away)?|disappear|be removed|"
             r"vanish)"),
    Rule("remove", rf"{{what}} {_IS} (?:not needed|not necessary|unnecessary|superfluous|unwanted|in the way)"),
    # Describing a thing.
    Rule("put", r"(?P<verb>(?:put|place|move|shift|push|set|position|bring|drag)) {what}"),
    Rule("give", r"(?P<verb>give) {what}"),
    Rule("add", r"surround {thing} (?:with|by) {what}", to="surrounded by"),
    Rule("add", r"(?:cover|fill|decorate|dress) {thing} (?:with|in) {what}", to="with"),
    Rule("be", rf"(?:can|could|should|may|might|would) {{thing}} {_BE} {{what}}"),
    Rule("do", rf"(?:make |let |have )?{{thing}} (?:{_MUST} |to )?(?P<what>look (?:to|at|into|towards?|up|down|away|"
         r"over|left|right|back|around|straight|through|out)\b.*)"),
    Rule("be", r"(?:let|have) {thing} (?:be|look|appear|seem|feel|become) (?P<what>(?:(?:a bit|a little|much|"
         r"far|more|less) )*(?!back|around|up|down|away|left|right|straight|sideways|ahead|out|over|in(?:side)?|past|"
         r"there)[\w-]+)"),
    Rule("be", rf"{{thing}} {_MUST} (?:also |rather |just |all )?{_BE} (?:like )?{{what}}"),
    Rule("be", r"{thing} to be {what}"),
    Rule("do", r"{thing} to (?!the |an? |my |its? |his |her |your |left\b|right\b|be |look )(?P<what>[a-z]+ .+)"),
    Rule("do", r"(?:let|have) {what}"),
    Rule("do", r"{thing} (?:should|must|could|can|needs to|has to) {what}"),
    Rule("size", r"{amount}(?P<verb>enlarge|enlarged|magnify|scale up|blow up|grow) {thing}", what="bigger"),
    Rule("size", r"{amount}(?P<verb>shrink|scale down|downsize) {thing}", what="smaller"),
    # Adding.
    Rule("add", r"(?P<verb>add(?: in)?|include|insert|throw in|bring in|introduce|give me|plus|\+|i(?:'m| am) "
             r"missing) {what}"),
    Rule("add", r"(?P<verb>with|also) {what}"),
    Rule("add", rf"there {_MUST} (?:also )?be {{what}}"),
    Rule("add", r"{thing} (?:needs?|lacks?|could use|could do with|is missing|are missing) {what}"),
    Rule("wish", r"(?P<verb>use|try|show|draw|paint|have|see|put in|go (?:for|with)) {what}"),
    # Nothing is to change.
    Rule("praise", rf"(?:{_I} )?(?:really |very much |absolutely |also |do |still )*(?:like|love|adore|enjoy) "
             rf"{{what}}"),
    Rule("praise", rf"{{what}} {_IS} (?:really |very |already |so |quite |pretty |just |all )*{_LIKE}(?: already| "
             rf"now| so far| as (?:it|they) (?:is|are))?"),
    Rule("praise", rf"(?:{_IS} )?(?:really |very |already |so |quite |pretty )*{_LIKE}(?: job| work| one| start| "
             rf"already)?"),
    Rule("praise", r"(?:well done|love|wow|yes|yeah|yay|ok+|this is it|that's it|thanks?|thank you|thx|hmm+|hm|hi|"
             r"hello|no|well)"),
    Rule("praise", rf"{{what}} {_IS} not(?: {_LIKE})?"),
    Rule("praise", r"(?:the )?same {what}"),
    # What is left: "the butterfly red", "the frog smaller", "three apples", "bigger".
    Rule("be", r"(?P<verb>make|turn|colou?r|paint|render|let|have|keep making) {what}"),
    Rule("be", r"{what}"),
)  # fmt: skip

ENGLISH = EditLanguage(
    name="English",
    rules=NEGATIONS + RULES,
    unreadable=UNREADABLE,
    sentence=SENTENCE,
    spoken=SPOKEN,
    polite_before=(
        r"(?:hm+|well|okay|ok|oh|so|and|but|also|then|next|now|yes|yeah|hey|hi|hello|still|actually|finally|first|"
             r"second)\b[,:]?",
        r"(?:please|pls|plz|kindly|maybe|perhaps|possibly|just|simply|rather|ideally)\b",
        r"(?:can|could|would|will|may|might) (?:you|we)(?: please)?(?: try to)?",
        r"(?:i|we) (?:think|guess|feel|believe|find|suggest|wonder if)(?: that)?",
        r"(?:i|we)(?:'d| would) (?:appreciate|be happy|be glad) (?:it )?if (?:you could |you )?",
        r"(?:it )?would (?:be|look) (?:much |a lot )?(?:nicer?|better|great|good|cool|lovely)"
        r"(?: if(?: you| we)?(?: could)?| to|(?= (?:with|without|at|in|on|as)\b))",
        r"(?:let's|let us|try to|try and|go ahead and|feel free to|make sure(?: that)?(?: to)?|be sure to|remember to)",
        r"what if(?: we| you)?",
        r"(?:ca|wo|could|would) ?n'?t (?:you|we)(?: please)?",
        r"why (?:not|do ?n'?t (?:we|you)|do (?:we|you) not)",
        r"(?:do not|do ?n'?t) (?:you )?(?:think|find|agree|feel|believe)(?: that)?(?= (?:it|the|that|this|there)\b)",
    ),
    polite_after=(
        r"please|pls|plz|thanks?(?: you)?|thank you|thx|any ?more|any longer|at all|too|as well|also|for me|"
        r"if possible|if you can|ok(?:ay)?|"
             r"though|now|overall",
        r"in (?:the|this) (?:picture|image)",
    ),
    wishes_before=(
        r"(?:i|we)(?:(?:'d| would|d) (?:rather |really |also |still |much )*(?:like|love|prefer|want|wish|rather)"
        r"|(?: rather| really| also| still| do)* (?:prefer|want|wish|need))"
        r"(?: (?:to|for))?(?: (?:see|have|get|use))?(?: (?:it|this|that))?(?: to)?(?: (?:be|have))?",
        r"(?:can|could|may|might) (?:i|we) (?:please )?(?:have|get|see)(?: (?:it|this))?",
        r"(?:how|what) about",
        r"only",
        r"(?:do not|do ?n'?t) forget(?: about)?(?: to (?:add|include|show|draw))?",
        r"(?:can|could) (?:you |we )?(?:please )?(?:do|try)",
    ),
    wishes_after=(
        r"(?:would|might|could) be (?:much |a lot |way )?(?:nicer?|better|great|good|cool|lovely|perfect)",
        r"instead",
        r"please|pls|plz",
    ),
    contractions={
        **SHORTER,
        r"\b(it|that|this|there|he|she|what|here)'s\b": r"\1 is",
        r"\b(they|we|you)'re\b": r"\1 are",
        r"\bi'm\b": "i am",
        r"\b(?!the |an? |any |main |in |my |this )(\w+) colou?r (?=(?:to|should|must|could)\b)": r"\1 ",
        r"^((?:way |much |a bit )?(?:less|more|fewer) \w+(?: \w+)?) (?=(?:more|less|fewer) )": r"\1, ",
        r"\b(?!let\b)(\w+)'s (?=(?:(?:way|far|much|a bit) )?(?:too|not|so|very)\b)": r"\1 is ",
        r"\bits (?=(?:way |far |a bit |much )*(?:too|so)\b)": "it is ",
    },
    clause_breaks=r"(?=\bwithout \w+ing (?:the|its?|his|her|their|any|my)\b)|\band then\b|\band\b|&|"
        r"(?<!anything )(?<!nothing )\bbut\b|\bthen\b|\bplus\b|\byet\b|\bbecause\b|\bsince\b|\bso that\b",
    names_next=words(
        "a an the no more less fewer add remove delete drop include insert plus want like with without of or and some "
        "any another my his her its their by into to for on in at under over wearing holding than"
    ),
    articles=words("a an the"),
    determiners=words(
        "the a an his her its their my our your this that these those all any some both every each of_the entire whole "
        "such so"
    ),
    pronouns=words("it him her them they he she this that these those one its"),
    persons=words("him her them they he she those these ones"),
    whole=words("everything all picture image scene the_picture the_image the_scene the_whole_thing overall"),
    connectors=tuple(
        words(
            "on in at with by under over above below near behind beside between among around against before from of to "
            "into onto through across along inside outside beyond within without during for as like upon beneath "
            "underneath towards toward next_to in_front_of on_top_of surrounded_by made_of made_out_of out_of "
            "covered_in drawn_in painted_in drawn_by painted_by covered_with covered_by filled_with full_of "
            "close_to wearing holding facing and or while"
        )
    ),
    joiners=words("and or &"),
    ing_nouns=words(
        "something anything nothing everything "
        "painting building drawing lighting evening morning king ring wing "
         "string spring thing ceiling clothing "
        "earring sling sting being swing viking pudding wedding engraving clearing opening dwelling crossing "
        "landing lightning icing railing lettering dumpling duckling darling herring sibling"
    ),
    colours=words(
        "red orange yellow green blue purple pink white black gray grey brown violet turquoise teal cyan magenta "
        "golden gold silver beige cream crimson scarlet navy indigo lavender maroon olive lime mint peach ivory "
        "emerald amber bronze copper tan khaki azure rose aqua coral burgundy charcoal ginger blonde"
    ),
    scene_kinds=(
        words("dark bright dim gloomy sunny"),
        words("sunrise sunset noon midnight night dusk dawn day daytime midday nighttime morning evening "
         "afternoon twilight"),
        words("spring summer autumn fall winter"),
        words("empty crowded busy deserted"),
        words("blurry sharp"),
        words("close-up close_up wide_shot long_shot full_shot macro zoomed_in zoomed_out"),
    ),
    kinds=(
        words("old young"),
        words("happy sad angry"),
        words("wooden metal glass stone plastic ceramic marble brick concrete paper"),
        words("round square triangular"),
        words("soft hard harsh"),
        words("warm cold cool"),
        words("long short"),
        words("thick thin"),
        words("fat slim"),
        words("wet dry"),
    ),
    sizes={
        **dict.fromkeys(("small", "smaller", "tiny", "little", "mini", "miniature"), -1),
        **dict.fromkeys(("large", "larger", "big", "bigger", "huge", "giant", "enormous", "gigantic", "massive"), 1),
    },
    size_words={-1: "small", 1: "large"},
    places={
        rf"{_FURTHER}(?:{_TO})?(?:far )?left{_SIDE}": "left",
        rf"{_FURTHER}(?:{_TO})?(?:far )?right{_SIDE}": "right",
        rf"{_FURTHER}{_TO}(?:top|upper){_SIDE}|{_FURTHER}(?:up(?:wards?)?|higher(?: up)?)": "top",
        rf"{_FURTHER}{_TO}(?:bottom|lower){_SIDE}|{_FURTHER}(?:down(?:wards?)?|lower(?: down)?)": "bottom",
        rf"(?:{_TO})?(?:dead |exact )?(?:cent(?:er|re)|middle)(?:ed|d)?{_SIDE}": "center",
    },
    place_words={
        "left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom",
        "center": "in the center",
    },
    numbers={
        "one": 1, "a single": 1, "single": 1, "two": 2, "a pair of": 2, "a couple of": 2, "three": 3, "four": 4,
            "five": 5,
        "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "a dozen": 12,
    },
    number_words={
        1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten",
        11: "eleven", 12: "twelve",
    },
    quantities=words("many several a_few lots_of a_lot_of plenty_of dozens_of hundreds_of"),
    styles={
        **dict.fromkeys(
            words(
                "flat 3d cartoon shaded glossy retro realistic photorealistic photo-realistic minimalist abstract "
                "impressionist surreal surrealist cubist baroque gothic vintage anime manga pixel cyberpunk steampunk "
                "art_deco art_nouveau film_noir noir pop_art low_poly isometric hyperrealistic expressionist rococo "
                "renaissance futuristic vaporwave ukiyo-e graffiti comic disney pixar ghibli cel-shaded monochrome"
            ),
            "adjective",
        ),
        **dict.fromkeys(
            words(
                "photo photograph photography painting oil_painting watercolour watercolor watercolour_painting "
                "watercolor_painting drawing pencil_drawing sketch pencil_sketch ink_drawing charcoal_drawing "
                "illustration comic_book digital_art concept_art fantasy_art vector_art line_art pixel_art 3d_render "
                "render clay_model collage engraving woodcut linocut mosaic poster sculpture fresco icon emoji "
                "screenprint black_and_white pastel_drawing stained_glass_window studio_photo "
                "black_and_white_photo food_photography "
                "film_still movie_still polaroid cartoon_drawing children's_book_illustration"
            ),
            "noun",
        ),
    },
    aspects=words(
        "colour color palette tone mood atmosphere feel feeling look light lighting shadow composition layout framing "
        "crop pose expression face texture contrast detail proportion shape angle perspective view"
    ),
    spellings={
        "color": "colour", "colorful": "colourful", "multicolored": "multicoloured", "watercolor": "watercolour",
        "gray": "grey",
    },
    looks=words("view angle shot perspective"),
    amounts={
        r"(?:just |only )?(?:a (?:little|tiny|wee) bit|a (?:bit|little|tad|touch)|slightly|somewhat|a hint|a "
             r"shade)(?: of)?": 0.5,
        r"(?:a lot|lots|way|much|far|heaps|a great deal|significantly|considerably|substantially|very|extremely|"
             r"so much|a whole lot)(?: of)?": 2,
        r"(?:even|still|some|quite|rather|any|really|so)": 1,
    },
    degrees={
        "better": "good", "worse": "bad", "bigger": "big", "more": "", "less": "", "further": "far", "farther": "far",
        "lighter": "bright", "bluer": "blue", "redder": "red", "larger": "large", "smaller": "small",
        "higher": "high", "longer": "long", "closer": "close", "older": "old", "younger": "young", "fewer": "",
    },
    strong=words(
        "strong intense dominant prominent much heavy loud present aggressive visible obvious striking distracting "
        "extreme overpowering overwhelming harsh noticeable"
    ),
    pictures=words(
        "picture photo photograph image portrait painting drawing sketch illustration logo poster icon render shot "
        "close-up view statue watercolor watercolour engraving print"
    ),
    vague=words(
        "better nicer good nice great different other prettier cooler best worse bad wrong right off work fine correct "
        "okay ok beautiful pretty interesting this that so it there here more less"
    ),
    worn_on=words("on onto"),
    states=words("is are was were has had does do did am be been looks seems feels appears look seem feel appear"),
    wearing={"wear": "wearing", "have": "with", "get": "with", "hold": "holding", "carry": "carrying"},
    family=words("y ed ful ish like en ous ly er ness ing"),
    irregular={
        "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "teeth": "tooth",
        "mice": "mouse", "geese": "goose", "leaves": "leaf", "wolves": "wolf", "knives": "knife", "loaves": "loaf",
        "shelves": "shelf", "scarves": "scarf", "fish": "fish", "sheep": "sheep", "deer": "deer", "koi": "koi",
        "cherries": "cherry", "grapes": "grape", "octopuses": "octopus", "cacti": "cactus", "glass": "glass",
        "glasses": "glasses", "sunglasses": "sunglasses", "trousers": "trousers", "movies": "movie", "cookies":
            "cookie",
        "dwarves": "dwarf", "elves": "elf", "hooves": "hoof", "halves": "half", "potatoes": "potato",
        "tomatoes": "tomato", "shrimp": "shrimp", "ties": "tie", "pies": "pie", "shoes": "shoe",
        "bread": "bread", "popcorn": "popcorn", "buses": "bus", "lens": "lens", "ukiyo-e": "ukiyo-e",
        "lenses": "lens", "canvases": "canvas", "atlases": "atlas", "muses": "muse", "fuses": "fuse",
        "moustaches": "moustache", "canvas": "canvas", "atlas": "atlas", "christmas": "christmas",
    },
)  # fmt: skip
