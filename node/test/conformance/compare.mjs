/** Returns one line for each difference between an expected and an actual value. */
export function differences(expected, came, path = '') {
  if (isRange(expected)) {
    const isIn = typeof came === 'number' && expected.min <= came && came <= expected.max
    return isIn ? [] : [difference(path, expected, came)]
  }
  if (Array.isArray(expected)) {
    return Array.isArray(came) && came.length === expected.length
      ? expected.flatMap((item, index) => differences(item, came[index], `${path}[${index}]`))
      : [difference(path, expected, came)]
  }
  if (isObject(expected)) {
    return isObject(came)
      ? Object.entries(expected).flatMap(([key, value]) => differences(value, came[key], `${path}.${key}`))
      : [difference(path, expected, came)]
  }
  const holds = expected === '*' ? !isEmpty(came) : expected === (came ?? null)
  return holds ? [] : [difference(path, expected, came)]
}

function difference(path, expected, came) {
  return `${path}: expected ${JSON.stringify(expected)}, came ${JSON.stringify(came ?? null)}`
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)

const isRange = (value) => isObject(value) && Object.keys(value).toSorted().join() === 'max,min'

const isEmpty = (value) =>
  value === undefined ||
  value === null ||
  value === '' ||
  (typeof value === 'object' && Object.keys(value).length === 0)
