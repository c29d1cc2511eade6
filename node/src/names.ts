// The core speaks of options and arguments by the names that Rust and Python give them.

const durations = [
  'timeout',
  'connect_timeout',
  'attempt_timeout',
  'total_timeout',
  'late_arrival',
  'retry_after',
]

/**
 * `user_ids[3]` → `userIds[3]`, `connect_timeout` → `connectTimeoutMs`.
 *
 * @internal
 */
export function inJavaScriptField(field: string): string {
  const name = durations.includes(field) ? `${field}_ms` : field
  return name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
}

const names =
  /(?<![.\w])(?:feed_card_id|user_ids|time_sensitive|user_id_type|app_(?:id|secret|ticket)|tenant_(?:key|access_token)|token_provider|base_url|allow_http|ca_certs|user_agent|(?:connect|attempt|total)_timeout|max_retries|rate_limit|late_arrival|max_users_per_request|retry_after|field_violations|from_env|set_(?:bot_)?time_sensitive|set_app_ticket)\b/

/** Values, and what is the platform's own word and not an option's name. */
const kept = /"(?:[^"\\]|\\.)*"|`(?:open_id|union_id|user_id)`|\ba tenant_access_token\b/

const wanted = new RegExp(`(${kept.source})|${names.source}`, 'g')

/**
 * A text of the core's own, with JavaScript's names in it.
 *
 * @internal
 */
export function inJavaScript(text: string): string {
  return text.replaceAll(wanted, (found, keep?: string) => keep ?? inJavaScriptField(found))
}
