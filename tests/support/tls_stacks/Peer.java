import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/** A TLS peer of Java's JSSE: Peer ROLE CHAIN KEY CA. The commands are those of peer.py. */
public class Peer {
    static final int LIMIT = 60_000;
    static final BufferedReader COMMANDS = new BufferedReader(new InputStreamReader(System.in));

    static byte[] pattern(int size) {
        byte[] data = new byte[size];
        for (int at = 0; at < size; at++) data[at] = (byte) (at ^ at >> 8 ^ at >> 16);
        return data;
    }

    static class Conversation {
        final SSLSocket tls;
        final Socket tcp; // below it if the connection is to be reset, else the same
        final MessageDigest digest = MessageDigest.getInstance("SHA-256");
        boolean isSlow;
        int count;
        String end = "none";

        Conversation(SSLSocket tls, Socket tcp) throws Exception {
            this.tls = tls;
            this.tcp = tcp;
        }

        void step(String name, int size) throws Exception {
            switch (name) {
                case "send" -> tls.getOutputStream().write(pattern(size));
                case "recv" -> receive(size);
                case "slow" -> isSlow = true;
                case "half" -> tls.shutdownOutput();
                case "close" -> tls.close();
                case "reset" -> {
                    tcp.setSoLinger(true, 0);
                    tcp.close();
                }
                case "wait" -> {
                    System.out.println("ready");
                    COMMANDS.readLine();
                }
                default -> throw new IllegalArgumentException(name);
            }
        }

        /** Receives so many bytes, or all to the end if size is negative. */
        void receive(int size) throws Exception {
            byte[] buffer = new byte[isSlow ? 8192 : 65536];
            int wanted = count + size;
            if (isSlow) Thread.sleep(50);
            while (size < 0 || count < wanted) {
                int room = size < 0 ? buffer.length : Math.min(buffer.length, wanted - count);
                int got;
                try {
                    got = tls.getInputStream().read(buffer, 0, room);
                } catch (SocketException error) {
                    end = "reset";
                    return;
                } catch (java.io.IOException error) { // javax.net.ssl.SSLException around an EOFException
                    if (!String.valueOf(error.getCause()).contains("EOF") && !(error instanceof java.io.EOFException)) throw error;
                    end = "cut";
                    return;
                }
                if (got < 0) {
                    end = "eof";
                    return;
                }
                count += got;
                digest.update(buffer, 0, got);
                if (isSlow) Thread.sleep(1);
            }
        }
    }

    static SSLContext context(String chainFile, String keyFile, String caFile) throws Exception {
        CertificateFactory certificates = CertificateFactory.getInstance("X.509");
        Certificate[] chain;
        try (var in = Files.newInputStream(Path.of(chainFile))) {
            chain = certificates.generateCertificates(in).toArray(new Certificate[0]);
        }
        String text = Files.readString(Path.of(keyFile)).replaceAll("-----[^-]*-----|\\s", "");
        PrivateKey key = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(text)));
        KeyStore own = KeyStore.getInstance("PKCS12"), trusted = KeyStore.getInstance("PKCS12");
        own.load(null, null);
        own.setKeyEntry("own", key, new char[0], chain);
        trusted.load(null, null);
        try (var in = Files.newInputStream(Path.of(caFile))) {
            trusted.setCertificateEntry("ca", certificates.generateCertificate(in));
        }
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(own, new char[0]);
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    static SSLSocket wrap(SSLContext context, Socket tcp, boolean isServer) throws Exception {
        SSLSocket tls = (SSLSocket) context.getSocketFactory().createSocket(tcp, "localhost", tcp.getPort(), true);
        tls.setUseClientMode(!isServer);
        return tls;
    }

    static String converse(SSLContext context, ServerSocket listener, String[] words) throws Exception {
        boolean isLayered = Arrays.asList(words).contains("reset");
        Socket tcp;
        if (listener != null) {
            tcp = listener.accept();
        } else {
            tcp = isLayered ? new Socket() : context.getSocketFactory().createSocket();
            tcp.connect(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), Integer.parseInt(words[1])), LIMIT);
        }
        tcp.setSoTimeout(LIMIT);
        SSLSocket tls = tcp instanceof SSLSocket made ? made : wrap(context, tcp, listener != null);
        if (listener != null) tls.setNeedClientAuth(true);
        tls.setEnabledProtocols(new String[] {"TLSv" + words[0]});
        tls.startHandshake();
        Conversation conversation = new Conversation(tls, tcp);
        try (tcp) {
            for (String word : Arrays.copyOfRange(words, 2, words.length)) {
                String[] parts = word.split(":");
                conversation.step(parts[0], parts.length > 1 ? Integer.parseInt(parts[1]) : -1);
            }
        }
        String digest = HexFormat.of().formatHex(conversation.digest.digest());
        return "done " + conversation.count + " " + digest + " " + conversation.end;
    }

    public static void main(String[] arguments) throws Exception {
        SSLContext context = context(arguments[1], arguments[2], arguments[3]);
        ServerSocket listener = null;
        if (arguments[0].equals("server")) {
            listener = new ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
            System.out.println("listening " + listener.getLocalPort());
        } else {
            System.out.println("started");
        }
        for (String line; (line = COMMANDS.readLine()) != null; ) {
            try {
                System.out.println(converse(context, listener, line.split(" ")));
            } catch (Exception error) {
                System.out.println("failed " + String.valueOf(error).replace('\n', ' '));
            }
        }
    }
}
