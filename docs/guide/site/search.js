// The search of the front page. Pagefind makes one index for each language; this asks all of them, because a reader of
// the Chinese guide also looks for names in the API reference, which is in English.
const most = 20
const input = document.querySelector('input')
const count = document.querySelector('#count')
const list = document.querySelector('#results')

const instances = []
for (const language of ['en', 'zh']) {
  // Pagefind takes the language from the page. Two languages need two copies of the module: it holds one WebAssembly.
  document.documentElement.lang = language
  const { createInstance } = await import(`./pagefind/pagefind.js?language=${language}`)
  const instance = createInstance({ noWorker: true })
  await instance.init()
  instances.push(instance)
}
document.documentElement.lang = 'en'

let latest = 0

/** Shows the pages that have the words, best first. */
async function search() {
  const mine = ++latest
  const words = input.value.trim()
  const answers = words === '' ? [] : await Promise.all(instances.map((instance) => instance.search(words)))
  const found = answers.flatMap((answer) => answer.results).sort((a, b) => b.score - a.score)
  const pages = await Promise.all(found.slice(0, most).map((result) => result.data()))
  // A newer search has begun.
  if (mine !== latest) {
    return
  }
  count.textContent = words === '' ? '' : `${found.length} · ${words}`
  list.replaceChildren(...pages.map(shown))
}

/** A result: its title, and an excerpt in which Pagefind has marked the words. */
function shown(page) {
  const item = document.createElement('li')
  const link = document.createElement('a')
  link.href = page.url
  link.textContent = page.meta.title
  const excerpt = document.createElement('p')
  excerpt.innerHTML = page.excerpt
  item.append(link, excerpt)
  return item
}

input.value = new URLSearchParams(location.search).get('q') ?? ''
input.addEventListener('input', search)
input.form.addEventListener('submit', (event) => event.preventDefault())
await search()
