"""English: what is said with "not", "no" and "without", and comments that no rule may guess at.

These rules are tried before all others, since a "not" that another rule takes for two words of a thing turns a comment
into its opposite: "the sky is not blue enough" asks for blue.
"""

from __future__ import annotations

from .edit_words import Rule

_BE = r"(?:be|look|appear|seem|feel|become|get|come out|turn)"
_MUST = r"(?:should|must|shall|ought to|needs? to|has to|have to|could|may|might|would|will)"
_MUST_NOT = (
    r"(?:(?:should|must|may|shall|could|will|would) not|(?:should|must|could|would) ?n[o']?'?t|wo ?n'?t|ca ?n'?t|"
    r"(?:should|must|may) never|cannot|can not|ought not to|had better not|better not|(?:does|do)(?: not|"
    r" ?n'?t) (?:need|have) to|need(?: not| ?n'?t))"
)
_IS_NOT = (
    r"(?:(?:is|are|was|were|looks?|seems?|feels?)(?: still| just| really)? not|(?:is|are|was|were) ?n'?t|"
    r"(?:does|do|did)(?: still)?(?: not| ?n'?t) (?:look|seem|feel|appear))"
)
_DO_NOT = (
    r"(?:(?:i|we|you|they) )?(?:(?:please )?(?:do|did)(?: not| ?n'?t)|dont|never|(?:would|should|must|"
    r"could)(?: not| ?n'?t)|'d not|"
    r"'d rather not|would rather not|rather not|not)(?: want (?:you )?to| like (?:you )?to| have to| need to| ever|"
    r" actually| really)?"
)
# After "may change".
FREELY = (
    r"(?:,? (?:again|now|too|freely|as well|a (?:little|bit|lot)|as you (?:like|wish|want|please)|"
    r"if you (?:like|wish|want)|if (?:needed|necessary)|please))*"
)
_NO_NEED = r"(?:there (?:is|was) )?(?:no need|no reason|not necessary|it is not necessary|unnecessary)"
_CHANGE = (
    r"(?:change|touch|alter|modify|lose|remove|drop|delete|replace|edit|hide|cut|move|mess with|take away|get rid of)"
)
_CHANGING = (
    r"(?:changing|touching|altering|modifying|losing|removing|dropping|deleting|replacing|editing|hiding|"
    r"cutting|moving|"
    r"messing with|taking away|affecting|getting rid of)"
)
_CHANGED = r"(?:changed?|touch(?:ed)?|altered|modified|lost|removed|dropped|deleted|replaced|edited|hidden|cut|moved?)"
_MAKE = r"(?:make|turn|paint|colou?r|render)"
_ANYTHING = r"(?:anything|a thing|any of (?:it|this|that)|too much|much)(?: else| more| here)?"
_BAD = r"(?:bad|terrible|wrong|awful|ugly|shabby|horrible)"
_REALLY = r"(?:really |quite |nearly |very |at all |yet |still |just |even |clearly |well |so )*"

NEGATIONS = (
    # All else is to stay, or need not.
    Rule("keep", rf"(?:(?:{_DO_NOT}|{_NO_NEED} to|you {_MUST_NOT}) (?:change|touch|alter|modify)|without (?:changing|"
         r"touching|altering|modifying)) (?:anything|a thing) else(?: here| at all)?", what="everything else"),
    Rule("keep", r"(?:change|touch|alter|modify) nothing else|nothing else (?:should|must|may|needs to|has to) (?:be )?"
         r"changed?", what="everything else"),
    Rule("keep", rf"(?:keep|leave|preserve|retain|{_DO_NOT} (?:change|touch|alter|modify)) (?:all )?(?:of )?the rest"
         r"(?: of (?:it|the (?:picture|image|scene)))?(?: (?:exactly )?(?:as (?:it|they) (?:is|are)|as is|the same|"
         r"unchanged|alone|untouched))?", what="everything else"),
    Rule("keep", r"(?:all )?the rest(?: of (?:it|the (?:picture|image|scene)))? (?:(?:should|must|shall|has to|is to) "
         r"(?:stay|remain|be kept)|stays?|remains?)(?: (?:exactly )?(?:as (?:it|they) (?:is|are)|as is|"
         r"the same|unchanged|alone|untouched))?", what="everything else"),
    Rule("keep", r"(?:all )?the rest(?: (?:of|in) (?:it|the (?:picture|image|scene)))? "
         r"(?:(?:should|must|may|shall)(?: ?n[o']?t| not)|can(?:not| not| ?'?t)) (?:be changed|change)",
         what="everything else"),
    Rule("release", r"(?:(?:everything|anything|all) else|(?:all )?the rest)(?: (?:of|in) (?:it|the (?:picture|image|"
         rf"scene)))? (?:may|can) (?:now )?(?:change|vary|be changed){FREELY}", what="everything else"),
    # Nothing is to change.
    Rule("praise", r"(?:there (?:are|is|should be) )?no(?: more| further| other| big| major| real)? (?:changes?|"
         r"problems?|complaints?|"
         r"objections?|worries|issues?|doubts?|remarks?|comments?|rush|hurry|need)"
         r"(?: needed| required| necessary| wanted| from me| here| at all| to change)*"),
    Rule("praise", r"(?:there (?:is|was) )?nothing(?: else| more| further)?(?: to (?:change|add|"
         r"complain(?: about)?|fix|improve)|"
         r" (?:should|must|needs to|has to) (?:be )?changed?| is missing| wrong(?: here)?)?"),
    Rule("praise", r"(?:change|remove|add|do|replace|alter|touch) nothing(?: else| more)?"),
    Rule("praise", r"nothing (?:is )?wrong with {what}"),
    Rule("praise", rf"never ?mind|{_NO_NEED}|not at all"),
    Rule("praise", r"(?:{what} )?(?:can ?not|can ?'?t|could ?n'?t|could not) (?:complain|be better|be happier)"),
    Rule("praise", rf"(?:{{what}} {_IS_NOT} |not )(?:so |too |that |half |at all )*{_BAD}(?: at all| actually)?"),
    Rule("praise", rf"{{what}} {_IS_NOT} (?:a |an |any |the )?(?:real )?(?:problem|issue|trouble)"),
    Rule("praise", r"not (?:a |an )?(?:real )?(?:problem|issue)"),
    Rule("praise", rf"{_DO_NOT} (?:mind|object to) {{what}}"),
    Rule("praise", rf"(?:(?:{_DO_NOT}|{_NO_NEED} to|you {_MUST_NOT}) {_CHANGE}|without {_CHANGING}) {_ANYTHING}"),
    Rule("praise", rf"(?:{_NO_NEED} to|you {_MUST_NOT}|you (?:do not|don'?t) (?:need|have) to) "
         rf"(?:add|make|draw|include|show|have|put|use|give) .+"),
    Rule("praise", r"{what} (?:does|do)(?: not| ?n'?t) (?:really )?(?:need|want) (?:any )?(?:more|another|"
         r"further|bigger) .+"),
    Rule("add", r"(?:add|include|insert|draw|show|put|paint|write)(?: in)? (?P<what>.+ (?:saying|(?:that|"
         r"which) (?:says?|reads?)|reading|"
         r"with the (?:text|words?)) .+)"),
    # What is to stay.
    Rule("keep", rf"(?:{_DO_NOT}|{_NO_NEED} to|(?:you |we )?{_MUST_NOT}) (?P<verb>{_CHANGE}) {{what}}"
         r"(?: too much| much| at all| again| any ?more)?"),
    Rule("keep", rf"without {_CHANGING} {{what}}(?: too much| much| at all)?"),
    Rule("keep", rf"{{what}} {_MUST_NOT} (?:be )?(?:{_CHANGED}|disappear|vanish|go(?: away)?)"),
    # Not enough of something.
    Rule("enough", rf"{{thing}} (?:{_IS_NOT}|not) {_REALLY}{{what}} enough(?: for .+| yet| at all)?"),
    Rule("enough", rf"(?:still |it |just )*not {_REALLY}{{what}} enough(?: for .+| yet| at all)?"),
    Rule("enough", rf"{{thing}} {_IS_NOT} (?:nearly )?as {{what}} as .+"),
    Rule("more", rf"{{what}} {_IS_NOT} {_REALLY}(?:visible|there|shown|present|recogni[sz]able|prominent|in (?:it|the "
         r"(?:picture|image)))(?: at all| enough| any ?more| yet)?"),
    Rule("more", r"(?:i |we |you )(?:can ?not|can ?'?t|could ?n'?t|could not|do ?n'?t|do not|hardly|can hardly|"
         r"can barely|"
         r"barely)(?: really| even| clearly| quite)? (?:see|find|spot|recogni[sz]e|make out|notice)(?! why\b| what\b| "
         r"how\b| (?:any |the |a |much |an? |real )*(?:differences?|changes?|problem|point|reason|improvement)\b)"
         r"(?: any| much of| much)? {what}"),
    Rule("more", rf"(?:there {_IS_NOT}|it (?:has|does ?n'?t have|does not have)|"
         rf"{{pronoun}} {_IS_NOT}) (?:enough|sufficient) "
         r"{what}"),
    Rule("more", r"(?:do not|does not|do ?n'?t|does ?n'?t) (?:have|see|show) enough {what}"),
    Rule("more", r"(?!something|anything){what} (?:is|are|was|were) missing"),
    Rule("more", r"where (?:is|are|did|has|have|was|were) {what}(?: go| gone)?"),
    Rule("more", r"{what} (?:has|have|is|are) (?:gone|disappeared|vanished)"),
    Rule("more", r"{what} can (?:hardly|barely|not) be (?:seen|recogni[sz]ed)"),
    Rule("more", r"{amount}(?P<verb>more) of (?:the |these |those ){what}"),
    Rule("less", r"{amount}(?P<verb>less|fewer) of (?:the |these |those ){what}"),
    Rule("add", r"(?:bring|put|get) back {what}"),
    Rule("add", r"(?:bring|put|get) {what} back"),
    # What should not be there.
    Rule("remove", r"(?P<verb>replace|swap|exchange|substitute|switch)(?: out)? {what} (?:with|for|"
         r"by) (?:nothing|none)"),
    Rule("remove", r"(?:0|zero|none of|not any|not a single|no single) (?:the |these |those )?{what}"),
    Rule("remove", rf"there {_MUST} (?:also |really )?be (?:no|zero|not any)(?: more)? {{what}}"),
    Rule("remove", rf"there (?:{_MUST_NOT}|should never|must never) be (?:any |an? |so many )?{{what}}"),
    Rule("remove", rf"(?:{{thing}} )?{_MUST} (?:have|wear|hold|show|carry|contain) (?:no|not any|zero) {{what}}"),
    Rule("remove", rf"{{what}} (?:(?:{_MUST} |to )?be )?gone"),
    Rule("remove", r"(?:add|use|draw|show|have|include|put|paint|with|wearing) no {what}"),
    Rule("remove", r"{thing} (?:does|do)(?: not| ?n'?t) (?:really )?need (?:an? |any )?(?!to\b|more\b){what}"),
    Rule("remove", r"no {what} (?:needed|wanted|necessary|required)"),
    Rule("remove", rf"{{what}} {_IS_NOT} (?:really )?(?:needed|wanted|necessary|required)"),
    Rule("remove", rf"{_NO_NEED} for (?:any |an? )?{{what}}"),
    Rule("remove", r"(?:i |we )(?:see|have) no (?:need|reason|use) for (?:an? |any )?{what}"),
    Rule("remove", r"without (?:adding|introducing|including|showing|drawing|using|having|"
         r"putting(?: in)?) (?:any |an? )?"
         r"{what}"),
    Rule("remove", rf"{_DO_NOT} (?:show|draw|include|add|use|have|put|paint|want|need|like|give (?:it|him|her|them))"
         rf"(?: to (?:see|have))?(?: any| so many| an?)? {{what}}"),
    # How something should not be.
    Rule("unlike", rf"(?:{_DO_NOT}|{_NO_NEED} to) {_MAKE} (?!.*\b(?:so|too|that)\b){{what}}"),
    Rule("unlike", r"without (?:making|turning|painting|colou?ring|rendering) {what}"),
    Rule("unlike", rf"{{thing}} {_MUST_NOT} {_BE} (?!(?:there|in|visible|present|seen|so|that|too|quite|"
         rf"as)\b){{what}}"),
    Rule("unlike", rf"{{thing}} {_MUST} not {_BE} (?!(?:there|in|visible|present|seen|so|that|too|quite|"
         rf"as)\b){{what}}"),
    Rule("unlike", r"(?:not|no)(?: any| even| much)? (?P<what>\w+er)"),
    # A part of a thing.
    Rule("part", rf"(?P<thing>[\w -]+?)(?:'s|(?<=s)') (?P<to>[\w-]+(?: [\w-]+)?) {_MUST} {_BE} {{what}}"),
    Rule("part", r"make (?P<thing>[\w -]+?)(?:'s|(?<=s)') (?P<to>[\w-]+) {what}"),
)  # fmt: skip

_NUMBER = r"(?:\d+|one|two|three|four|five|six|seven|eight|nine)"
_NUMBERS = rf"{_NUMBER}(?:(?:,| and| or| with| &|, and) {_NUMBER})*"
_PICTURES = r"(?:pictures?|images?|photos?|numbers?|nr\.?|versions?|options?|variants?)"
_ORDINAL = r"(?:first|second|third|fourth|fifth|sixth|last|left|right|middle|upper|lower|top|bottom|other)"
_NO_BREAK = r"(?:(?!,|\bbut\b).)*"

# Whole clauses: those of pictures by their number, which no prompt holds, and negations whose reach no rule tells.
UNREADABLE = (
    r"(?!.*\b(?:that|which|who) (?:may|can)\b).+ (?:may|can) (?:now )?(?:change|vary|be changed) (?:in ?)?to .+",
    rf"(?:{_NO_BREAK} )?{_PICTURES} #?{_NUMBERS}(?: {_NO_BREAK})?",
    rf"{_NO_BREAK}#\d+{_NO_BREAK}",
    rf"(?:{_NO_BREAK} )?(?:mix|combine|merge|blend|prefer|like|love|take|choose|pick|use|keep|"
    rf"between)(?: of)? {_NUMBERS}",
    rf"(?:{_NO_BREAK} )?{_ORDINAL} (?:one|{_PICTURES})(?: {_NO_BREAK})?",
    rf"{_NO_BREAK}\b(?:like|prefer|choose|pick|take|use|mix|combine|as in|love) the (?:first|second|third|fourth|last)",
    r"(?:the )?(?:first|second|third|fourth|last) (?:is|was|looks) .*",
    r"not (?:(?:much|many) .+|(?:too|so|that) (?:much|many))|no matter .+|no ?(?:one|body)(?: .*)?",
    r"(?:yes|no) to .+|.+ (?:yes|no)",
    r".+ (?:(?:does|do)(?: not| ?n'?t) (?:need|have) to|need(?: not| ?n'?t)) (?:be|look) (?!there|in |so |visible).*",
    r"none(?: of (?:them|these|those|the (?:pictures|images)))?",
    r"[-−–]\d.*",
    rf"(?:{_NO_BREAK} )?(?:last|previous|next|earlier) (?:time|round|attempt|one|{_PICTURES})(?: {_NO_BREAK})?",
    rf"(?!(?:keep|preserve|retain|maintain) )(?:{_NO_BREAK} )?(?:look|seem|appear|feel)",
    r"(?:fewer|less|more) (?:changes?|of (?:this|that|these|those|the same)|like (?:this|that))",
    r"no (?:way|idea|clue|luck|chance|good|use)|not (?:an? |the )?.+ ones?|not excessively .+",
    r"(?:really |still )?not (?:really|quite|exactly|yet|now|here|again|sure|entirely|my .+|our .+|what .+|"
    r"how .+|why .+)",
    r".*\b(?:neither|nor|not only|not just|not necessarily|anything but|nothing but|unless|except(?: for)?|if not|"
    r"apart from|not sure|not certain|not like (?:this|that))\b.*",
)  # fmt: skip

_DO_NOT_WANT = r"\b(?:i|we) (?:do not|do ?n'?t|never|would not|would ?n'?t) (?:really |actually )?(?:want|like|wish)"
_NAMED = r"(it|this|that|him|her|them|(?:the|my|his|her|its|their|your|any|all) \w+(?: \w+)?)"

# "Everything but the hat may change": where a clause begins and ends, and a thing without a sentence in it. Words are
# parted by a space each, so that there is one way to read them.
_CLAUSE = r"(^|, |\band |; )((?:please |maybe |i think )?)"
_ALL = r"(?:everything|anything|all)(?: else)?"
_BUT = r"(?:but|except(?: for)?|apart from|besides|other than)"
_OF_SENTENCES = (
    r"is|are|was|were|looks?|seems?|may|can|could|would|will|should|must|might|be|has|have|needs?|stays?|remains?|to|if|"
    r"everything|all|else|but|except|i|it|this|that|not|\w+n't"
)
_WORDS = r"(?!(?:{without})\b)[\w'-]+(?: (?!(?:{without})\b)[\w'-]+){{0,4}}"
_THINGS = _WORDS.format(without=_OF_SENTENCES)
_THE_THING = "(?:the|my|his|her|its|their|our) " + _WORDS.format(
    without=_OF_SENTENCES + r"|and|or|with|as|again|only|too|gets?|wears?|\w+ing"
)
_MAY_CHANGE = r"(?:may|can) (?:now )?(?:change|vary|be changed)"
_EITHER_WAY = rf"(?:{_ALL} {_MAY_CHANGE}{FREELY}|(?:you )?(?:may|can) change {_ALL})"

# Other words for what the rules have.
SHORTER = {
    # As a clause of its own: "keep everything, but the hat may change" says something else.
    rf"{_CLAUSE}{_ALL} {_BUT} ({_THINGS}),? (?={_MAY_CHANGE}{FREELY}(?:$|[,.;!]| and | but ))": (
        r"\1\2keep \3, everything else "
    ),
    rf"{_CLAUSE}{_EITHER_WAY},? {_BUT}(?: not)? ({_THE_THING})(?=$|[.;!])": r"\1\2keep \3, everything else may change",
    rf"{_DO_NOT_WANT} {_NAMED} to (?=\w)": r"\1 should not ",
    rf"{_DO_NOT_WANT} {_NAMED} (\w+er)$": r"do not make \1 \2",
    r"\bi (?:do not|do ?n'?t) (?:think|believe|feel)(?: that)? (.+?) (should|must|is|are|was|looks?) ": r"\1 \2 not ",
    # What it was is not known; what else is said is.
    r"(?<=\w),? (?:just |exactly )?(?:as|like) (?:it (?:was|did) )?(?:before|earlier|previously|(?:at )?first|"
    r"originally)$": "",
    r"^without (.+?),? (?:it|this|(?:the )?(?:picture|image|scene)) would (?:be|look) .+$": r"without \1",
    r"^(could|should|would) ?n't (it|this|that|they|the \w+) (?=be\b|look\b)": r"\1 \2 ",
    r"^(is|are) ?n't (it|this|that|they|the \w+) (?=(?:way |far |a bit |much |a little )*(?:too|so)\b)": r"\2 \1 ",
    r"\b(?:make sure|ensure|be sure|see to it)(?: that)? there (?:is|are) no ": "there should be no ",
    r"\b(?:make sure|ensure|be sure|see to it)(?: that)? (.+?) (?:is|are)(?: not|n'?t) ": r"\1 should not be ",
    r"\b(?:be careful|take care|try|make sure|be sure|remember)(?: please)? not to ": "do not ",
    r"^((?:please )?(?:remove|delete|erase|drop|get rid of|lose) [^,]+?),? (?:but |and )?not (?=(?:the|his|her|"
    r"its|my)\b)": r"\1, keep ",
    r"^((?:please )?(?:make|add|more|give|put)\b.*?|.*\w+er),? but (?:please )?not (?:too|overly) ": (
        r"\1, not excessively "
    ),
}

# What the words of an edit never hold: the verbs of sentences, negations, and who speaks. Relative clauses, and what a
# sign says, may.
SENTENCE = (
    r"(?<![\w-])(?:not|never|cannot|nor|neither|nothing|nobody|none|should|would|could|must|shall|ought|does|did|do|"
    r"dont|\w+n't)(?![\w-])"
    r"|(?<!\w that )(?<!\bwhich )(?<!\bwho )(?<![\w-])(?:is|are|was|were|has|have|had)(?![\w-])"
    r"|^(?:i|we|you|no|without)\b|(?<![\w-])(?:is|are|was|were|has|have)$|\bto be\b"
    r"|(?<!who )(?<!that )\b(?:lost|forgot|removed|changed|got|became) (?:the|its?|his|her|their|my)\b"
    r"|^need to\b|^what\b|\bwhat i\b"
    r"|^(?:add|make|remove|include|delete|replace|change|keep|turn|put|draw|show|use|give) (?:an?|the|it|some|any|more|"
    r"him|her|them)\b|\b(?:i|we|you|it|they|he|she) (?:can|will|may|might)\b"
)
SPOKEN = r"\"[^\"]*\"|\b(?:says?|saying|reading|reads|text|words?|titled|called|named|labell?ed)\b.*"
