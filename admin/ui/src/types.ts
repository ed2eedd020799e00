// What the API says, as /api/v1/openapi.json describes it. Times are RFC 3339, durations seconds, c2b and b2c bytes.

export type Role = 'none' | 'read' | 'operate' | 'configure'

export interface Me { name: string; how: string; role: Role; login: boolean }

export interface Bytes { c2b: number; b2c: number }

export interface Totals {
  sessions: number
  flows: number
  new_per_second: number
  c2b: number
  b2c: number
  errors_per_second: number
  connect_p50: number | null
  connect_p99: number | null
}

export interface Flowing { open: number; new_per_second: number; c2b: number; b2c: number }

export interface BackendSample extends Flowing {
  address: string
  state: string
  weight: number
  errors_per_second: number
  connect_p99: number | null
}

export interface PoolSample extends Flowing { name: string; up: number; down: number; other: number; backends?: BackendSample[] }

export interface FrontendSample extends Flowing { name: string }

export interface Sample { time: string; version: number; totals: Totals; frontends: FrontendSample[]; pools: PoolSample[] }

export interface History { step_seconds: number; end: string; series: { [K in keyof Totals]: Totals[K][] } }

export interface Health {
  kind: string
  state: string
  since: string
  why?: string
  streak: number
  last_check?: string
  last_result?: string
  last_error?: string
  note?: string
  latency_seconds: number
}

export interface Backend {
  pool: string
  address: string
  state: string
  weight: number
  configured_weight?: number
  ordered_weight?: number
  order?: string // drain or maintenance, by somebody
  agent_order?: string // the same, by the backend's agent
  priority: number
  max_connections: number
  open: number
  connected: number
  connect_errors: Record<string, number>
  bytes: Bytes
  zone?: string
  labels?: Record<string, string>
  health?: Health
}

export interface Pool {
  name: string
  policy: string
  retries: number
  no_backend: number
  pool_limit: number
  backend_limit: number
  panic_picks: number
  backends: Backend[]
  discovery?: Discovery
  persistence?: Persistence
}

export interface Persistence { entries: number; max_entries: number; hits: number; misses: number; moves: number; evictions: number }

export interface Stick { client: string; backend: string; idle_seconds: number; left_seconds: number }

export interface Rule { match: string; pool: string; passthrough?: boolean }

export interface Frontend {
  name: string
  protocol: string
  listeners: string[]
  pool?: string
  routes: number
  rules?: Rule[]
  max_connections: number
  open: number
  accepted: number
  bytes: Bytes
  ended: Record<string, number>
  retired?: boolean
  udp?: { datagrams: Bytes; dropped_c2b: Record<string, number>; dropped_b2c: Record<string, number> }
  tls?: { handshakes: Record<string, number>; resumed: number; failed: number; half_open: number }
}

export interface Certificate {
  frontend?: string
  pool?: string
  names: string[]
  origin: string
  file?: string
  key?: string
  not_before?: string
  not_after?: string
  fingerprint?: string
  error?: string
  staple: { state: string; until?: string; error?: string }
}

export interface Acme { name: string; state: string; not_after?: string; next_attempt?: string; failures: number; error?: string }

export interface Status {
  version: string
  revision?: string
  state: string
  started: string
  uptime_seconds: number
  config: { file: string; name?: string; stopped?: boolean; version: number; last_tried: string; last_ok: boolean; error?: string }
  sessions: { open: number; limit: number }
  flows: { open: number; limit: number }
  frontends: Frontend[]
  pools: Pool[]
  retired: Backend[]
}

// What is health, order, weight or agent, and from and to are states or weights; or it is discovery, and backend is empty.
export interface Event {
  time: string
  pool: string
  backend: string
  what: string
  from: string
  to: string
  why?: string
  by?: string
  after_seconds?: number
  discovery?: { event: string; source?: string; added: number; removed: number; changed: number; backends: number }
}

export interface Check {
  pool: string
  backend: string
  kind: string
  state: string
  since: string
  why?: string
  streak: number
  last: { time: string; result: 'good' | 'bad' | 'unknown'; seconds: number }[]
}

export interface Source {
  name: string
  state: string
  since: string
  backends: number
  held?: number
  last_success?: string
  last_try?: string
  failures: number
  error?: string
  reason?: string
  skipped?: string
}

export interface Discovery { pool: string; backends: number; changes: number; changed?: string; save_error?: string; sources: Source[] }

export interface Session {
  id: string
  protocol: string
  frontend: string
  pool?: string
  backend?: string
  client: string
  proxy?: string
  state: string
  age_seconds: number
  idle_seconds: number
  bytes: Bytes
  sni?: string
  tls?: string
}

// total is there when they are sorted, next when they are not.
export interface SessionPage { sessions: Session[]; total?: number; next?: string }

export interface Mistake { file?: string; line?: number; key?: string; message: string }

export interface Change { kind: string; name: string; action: string; detail?: string }

export interface Report { version?: number; changes: Change[]; need_restart?: string[] }

// Changed is what a change of one table did, or would do; text is what would run.
export interface Changed extends Report { warnings?: string[]; dry_run: boolean; unsaved: boolean; text?: string }

// now is missing where a limit is of each source, or a rate; hits where nobody counts.
export interface Limit { scope: 'process' | 'frontend' | 'pool' | 'backend'; name?: string; limit: string; value: number; now?: number; hits?: number }

export interface BusySource { frontend: string; source: string; open: number; limit: number }

export interface AuditEntry { time: string; who: string; from: string; method: string; path: string; status: number; error?: string }

export interface Shard { sessions: number; flows: number; accept_pauses: number; accept_errors: number; spliced_bytes: number; access_log_dropped: number }

export interface Verdict { ok: boolean; errors?: Mistake[]; warnings?: (string | Mistake)[]; changes?: Change[]; need_restart?: string[] }

export interface NamedConfig { name: string; size: number; changed: string; etag: string; active: boolean; mistakes: number }

export interface ConfigList { active: string; stopped?: boolean; unsaved?: boolean; configs: NamedConfig[] }

export interface Revision { version: number; time: string; who?: string; size: number }
