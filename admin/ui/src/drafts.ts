// What has been typed and is not stored yet, for whoever looks at another view meanwhile.

// text was made of from, as it was stored then.
export interface Draft { text: string; from: string }

export const drafts = new Map<string, Draft>()

addEventListener('beforeunload', (e) => { if (drafts.size > 0) e.preventDefault() })
