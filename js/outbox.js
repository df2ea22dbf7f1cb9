/**
 * Votes on their way to the server: kept until it has answered, whatever becomes of the node they were given in. The choices
 * of Choose Images travel by it, too. No host, no page: runs under Node.
 *
 * @typedef {{test: string, pair: string, side: "left"|"right"|"tie"|null, before: string|null}} Vote   before = the pair's
 *           choice that the server has
 */

/** The server gave no answer: whatever it was asked may be asked again. Any other error is its answer. */
export class Unanswered extends Error {}

export const RETRY_MILLISECONDS = 4000;

/** A/B Test: of a pair only the newest vote counts. */
const ofSamePair = (one, other) => one.test === other.test && one.pair === other.pair;

/**
 * @param {object} outside
 * @param {(vote: Vote, leaving: boolean) => Promise<any>} outside.post  hands a vote to the server; leaving = the page closes
 * @param {() => void} outside.onChange  the list, or what is known of the server, has changed
 * @param {(vote: Vote, error: Error) => void} outside.onRefused  the server does not take this vote; it is not sent again
 * @param {number} [outside.retryMilliseconds]
 * @param {(vote: Vote, newer: Vote) => boolean} [outside.replaces]   whether a newer vote takes an earlier one's place
 */
export function createOutbox({ post, onChange, onRefused, retryMilliseconds = RETRY_MILLISECONDS, replaces = ofSamePair }) {
    let votes = [];
    let unanswered = false;
    let turn = Promise.resolve();
    let timer;

    /** Do a piece of work when all that was asked for before is done; its result. */
    function inTurn(work) {
        const done = turn.then(work);
        turn = done.catch(() => {});
        return done;
    }

    function without(vote) {
        votes = votes.filter((other) => other !== vote);
    }

    async function drain() {
        clearTimeout(timer);
        while (votes.length) {
            const [vote] = votes;
            try {
                await post(vote, false);
            } catch (error) {
                if (error instanceof Unanswered) {
                    unanswered = true;
                    timer = setTimeout(flush, retryMilliseconds);
                    onChange();
                    return;
                }
                without(vote);
                onRefused(vote, error);
            }
            unanswered = false;
            without(vote);
            onChange();
        }
    }

    /** Send what is not sent yet; resolves after the attempt. */
    function flush() {
        return inTurn(drain);
    }

    return {
        inTurn,
        flush,
        /** Keep a vote and send it. */
        add(vote) {
            const earlier = votes.find((other) => replaces(other, vote));
            votes = [...votes.filter((other) => other !== earlier), earlier ? { ...vote, before: earlier.before } : vote];
            onChange();
            return flush();
        },
        /** Forget votes that are taken back otherwise. */
        drop(dropped) {
            votes = votes.filter((vote) => !dropped.includes(vote));
            unanswered &&= votes.length > 0;
            onChange();
        },
        /** The votes of a test that the server may not have, oldest first. */
        of: (test) => votes.filter((vote) => vote.test === test),
        all: () => votes,
        unanswered: () => unanswered,
        /** The page closes: send everything at once, without waiting for answers. */
        leave() {
            for (const vote of votes) post(vote, true).catch(() => {});
        },
    };
}
