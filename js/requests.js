/**
 * Asking the server for JSON, and telling "it does not answer" from "it says no".
 */

import { Unanswered } from "./outbox.js";

/** After this long without an answer the server is taken to be away, not slow. */
export const PATIENCE_MILLISECONDS = 20_000;
/** What a server in between says while ours is away. */
const AWAY = [502, 503, 504];

/**
 * @param {{fetchApi: (path: string, options: object) => Promise<Response>}} api
 * @returns {(path: string, body?: object, extra?: object) => Promise<any>}   with a body it posts; fails with `Unanswered`, or
 *          with what the server said as an Error that holds its `status`
 */
export function createRequest(api) {
    return async (path, body, extra = {}) => {
        const posted = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
        let response;
        try {
            response = await api.fetchApi(path, { ...(body ? posted : {}), ...extra });
        } catch (error) {
            throw new Unanswered("The server does not answer.", { cause: error });
        }
        if (AWAY.includes(response.status)) throw new Unanswered("The server does not answer.");
        const answer = await response.json().catch(() => ({}));
        if (!response.ok) throw Object.assign(new Error(answer?.error ?? `${path}: ${response.status}`), { status: response.status });
        return answer;
    };
}
