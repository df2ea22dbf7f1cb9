/**
 * Which nodes mean a session by a name that it has no more. No host, no page: runs under Node.
 */

/** The name that there is a choice of even before a session has it; as in nodes/refinement/nodes_session.py. */
const FIRST_NAME = "my session";

const folded = (name) => String(name).trim().toLowerCase();

/**
 * What a Refinement Session node says once the session that it means is called `after` instead of `before`.
 * @param {{session: string, new_name: string}} said   the values of its widgets
 * @returns {{session: string, new_name: string}|null}   null where it means another session
 */
export function renamedIn(said, before, after) {
    const typed = folded(said.new_name);
    if ((typed || folded(said.session)) !== folded(before)) return null;
    return typed ? { ...said, new_name: after } : { ...said, session: after };
}

/** The names to choose from after a session was renamed. */
export function choicesAfter(names, before, after) {
    const others = names.filter((name) => name !== after && (name !== before || name === FIRST_NAME));
    return [after, ...others];
}
