import { createOtpLogin } from '@otp-login/client';
import { createLoginFlow } from '@otp-login/client/flow';
import { useUser } from '@otp-login/client/react';
import { useState, useSyncExternalStore } from 'react';
import { createRoot } from 'react-dom/client';

const url = import.meta.env.VITE_LOGIN_URL ?? 'http://localhost:3000';
// One for the page: every component shares it.
const client = createOtpLogin({ url });
const flow = createLoginFlow(client);

function Login() {
  const { step, busy, error, sent } = useSyncExternalStore(flow.subscribe, () => flow.state);
  const [text, setText] = useState('');
  const onCode = step === 'code';
  const submit = (event) => {
    event.preventDefault();
    if (onCode) void flow.verify(text);
    else void flow.send(text).then(() => flow.state.step === 'code' && setText(''));
  };
  return (
    <form onSubmit={submit}>
      <label>
        {onCode ? `Code for ${sent.phoneNumber}` : 'Mobile number'}
        <input
          value={text}
          inputMode={onCode ? 'numeric' : 'tel'}
          autoComplete={onCode ? 'one-time-code' : 'tel-national'}
          onChange={({ target }) => setText(onCode ? flow.enter(target.value) : target.value)}
        />
      </label>
      {error && <p role="alert">{error.code}</p>}
      <button disabled={Boolean(busy)}>{onCode ? 'Log in' : 'Send code'}</button>
    </form>
  );
}

function Account({ user }) {
  const [me, setMe] = useState('');
  // In an application this is your own API.
  const call = () => client.fetch(`${url}/auth/me`).then(async (answer) => setMe(await answer.text()));
  return (
    <>
      <h1>{user.phoneNumber}</h1>
      <button onClick={call}>Call the API</button>
      <button onClick={() => client.logout().then(() => location.reload())}>Log out</button>
      <output>{me}</output>
    </>
  );
}

function App() {
  const user = useUser(client);
  if (user === undefined) return <p>…</p>;
  return user ? <Account user={user} /> : <Login />;
}

createRoot(document.getElementById('app')).render(<App />);
