// The one place where the cases' names, the platform's and Python's, meet JavaScript's.

const DURATIONS = [
  'timeout',
  'connect_timeout',
  'attempt_timeout',
  'total_timeout',
  'late_arrival',
  'retry_after',
]

export const camel = (text) => text.replaceAll(/_([a-z])/g, (_, letter) => letter.toUpperCase())

const snake = (name) => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/** Arguments and options: camelCase, milliseconds for seconds, and what is null left out. */
export function inJavaScript(given) {
  const entries = Object.entries(given)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => {
      if (DURATIONS.includes(name)) {
        return [`${camel(name)}Ms`, value * 1000]
      }
      if (name === 'rate_limit') {
        const [perSecond, perMinute] = value
        return ['rateLimit', { perSecond, perMinute }]
      }
      return [camel(name), value]
    })
  return Object.fromEntries(entries)
}

const usersInJson = ({ reached, failed, unknown, notAttempted }) => ({
  reached,
  failed,
  unknown,
  not_attempted: notAttempted,
})

export const outcomeInJson = (outcome) => ({
  ok: outcome.ok,
  failed_user_reasons: outcome.failedUserReasons.map(({ errorCode, errorMessage, userId }) => ({
    error_code: errorCode,
    error_message: errorMessage,
    user_id: userId,
  })),
  log_id: outcome.logId,
  log_ids: outcome.logIds,
  requests: outcome.requests,
  users: usersInJson(outcome),
})

export const errorInJson = (error) => ({
  kind: error.code,
  platform_code: error.platformCode,
  http_status: error.httpStatus,
  retryable: error.retryable,
  attempts: error.attempts,
  station: error.station,
  reason: error.reason,
  field: error.field && snake(error.field.replace(/Ms$/, '')),
  log_id: error.logId,
  users: usersInJson(error),
  retry_after: error.retryAfterMs === undefined ? undefined : error.retryAfterMs / 1000,
  field_violations: error.fieldViolations,
  permission_violations: error.permissionViolations,
})

export const reportInJson = (report) => ({
  taken: report.taken,
  succeeded: report.succeeded,
  failed: report.failed,
  not_read: report.notRead,
  text: `${report}`,
  failures: report.failures.map(({ index, tag }) => ({ index, tag })),
  unread: report.unread.map(({ index }) => index),
  unfinished: report.unfinished.map((left) => ({
    index: left.index,
    tag: left.tag,
    users: usersInJson(left),
  })),
})

/** Whether a message has the text, or the text with JavaScript's names in it. */
export const has = (message, text) => message.includes(text) || message.includes(camel(text))
