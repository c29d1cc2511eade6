export default function Page() {
  return <p>POST /api/alerts</p>
}
