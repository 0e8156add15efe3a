using System.Buffers;
using System.Buffers.Binary;
using System.IO.Pipelines;
using System.Net;
using Microsoft.AspNetCore.Connections;

namespace Tensormesh.MockDevicePlugin;

/// <summary>
/// Makes Kestrel accept a kubelet older than 1.26. Its gRPC client names the socket's path as the HTTP/2 <c>:authority</c>,
/// and Kestrel resets such a stream because a slash is no part of a host name (dotnet/aspnetcore issue 18522; there is no
/// switch). This stands between socket and server and writes <c>localhost</c> in place of the value, in HEADERS frames only.
/// </summary>
/// <remarks>
/// The dynamic table of HPACK stays in step: indexes count from the newest entry, and an entry that became shorter is
/// evicted later than the sender believes, never earlier. Values that are not longer than the replacement stay as they are.
/// </remarks>
internal static class AuthorityRewrite
{
    private const int PrefaceLength = 24;
    private const int FrameHeaderLength = 9;
    private const byte HeadersFrame = 1;
    private const byte PaddedFlag = 0x8;
    private const byte PriorityFlag = 0x20;
    private const int AuthorityIndex = 1;
    private static readonly byte[] Replacement = "localhost"u8.ToArray();

    public static ConnectionDelegate Wrap(ConnectionDelegate next) => async connection =>
    {
        var socket = connection.Transport;
        var rewritten = new Pipe();
        connection.Transport = new Duplex(rewritten.Reader, socket.Output);
        var copying = CopyAsync(socket.Input, rewritten.Writer);
        try
        {
            await next(connection);
        }
        finally
        {
            connection.Transport = socket;
            await rewritten.Reader.CompleteAsync();
            socket.Input.CancelPendingRead();
            await copying;
        }
    };

    private static async Task CopyAsync(PipeReader input, PipeWriter output)
    {
        Exception? failure = null;
        try
        {
            var inFrames = false;
            while (true)
            {
                var read = await input.ReadAsync();
                var rest = read.Buffer;
                if (!inFrames && rest.Length >= PrefaceLength)
                {
                    Write(output, rest.Slice(0, PrefaceLength));
                    rest = rest.Slice(PrefaceLength);
                    inFrames = true;
                }

                while (inFrames && TryTakeFrame(ref rest, out var frame))
                {
                    output.Write(Rewrite(frame));
                }

                input.AdvanceTo(rest.Start, rest.End);
                var flushed = await output.FlushAsync();
                if (read.IsCompleted || read.IsCanceled || flushed.IsCompleted)
                {
                    return;
                }
            }
        }
        catch (Exception e) when (e is IOException or ConnectionResetException or ConnectionAbortedException)
        {
            failure = e;
        }
        finally
        {
            await output.CompleteAsync(failure);
        }
    }

    private static void Write(PipeWriter output, ReadOnlySequence<byte> bytes)
    {
        foreach (var segment in bytes)
        {
            output.Write(segment.Span);
        }
    }

    private static bool TryTakeFrame(ref ReadOnlySequence<byte> rest, out byte[] frame)
    {
        frame = [];
        if (rest.Length < FrameHeaderLength)
        {
            return false;
        }

        Span<byte> length = stackalloc byte[4];
        length[0] = 0;
        rest.Slice(0, 3).CopyTo(length[1..]);
        var whole = FrameHeaderLength + BinaryPrimitives.ReadInt32BigEndian(length);
        if (rest.Length < whole)
        {
            return false;
        }

        frame = rest.Slice(0, whole).ToArray();
        rest = rest.Slice(whole);
        return true;
    }

    /// <summary>The frame as the server should see it: itself, or a copy with another <c>:authority</c> and length.</summary>
    internal static byte[] Rewrite(byte[] frame)
    {
        if (frame[3] != HeadersFrame)
        {
            return frame;
        }

        var flags = frame[4];
        var start = FrameHeaderLength + ((flags & PaddedFlag) != 0 ? 1 : 0) + ((flags & PriorityFlag) != 0 ? 5 : 0);
        var end = frame.Length - ((flags & PaddedFlag) != 0 ? frame[FrameHeaderLength] : 0);
        if (FindAuthority(frame, start, end) is not var (from, to) || to - from - 1 <= Replacement.Length)
        {
            return frame;
        }

        byte[] rewritten = [.. frame.AsSpan(0, from), (byte)Replacement.Length, .. Replacement, .. frame.AsSpan(to)];
        var length = rewritten.Length - FrameHeaderLength;
        (rewritten[0], rewritten[1], rewritten[2]) = ((byte)(length >> 16), (byte)(length >> 8), (byte)length);
        return rewritten;
    }

    /// <summary>Where the value of a literal <c>:authority</c> stands (its length octets included), or null.</summary>
    private static (int From, int To)? FindAuthority(byte[] block, int at, int end)
    {
        while (at < end)
        {
            var first = block[at];
            if ((first & 0x80) != 0)
            {
                ReadInteger(block, ref at, 7);
                continue;
            }

            if ((first & 0xE0) == 0x20)
            {
                ReadInteger(block, ref at, 5);
                continue;
            }

            var nameIndex = ReadInteger(block, ref at, (first & 0x40) != 0 ? 6 : 4);
            if (nameIndex == 0)
            {
                SkipString(block, ref at);
            }

            var valueStart = at;
            SkipString(block, ref at);
            if (nameIndex == AuthorityIndex)
            {
                return (valueStart, at);
            }
        }

        return null;
    }

    private static void SkipString(byte[] block, ref int at)
    {
        var length = ReadInteger(block, ref at, 7);
        at += length;
    }

    private static int ReadInteger(byte[] block, ref int at, int prefixBits)
    {
        var mask = (1 << prefixBits) - 1;
        var value = block[at++] & mask;
        if (value < mask)
        {
            return value;
        }

        for (var shift = 0; shift <= 21; shift += 7)
        {
            var next = block[at++];
            value += (next & 0x7F) << shift;
            if ((next & 0x80) == 0)
            {
                return value;
            }
        }

        throw new ProtocolViolationException("An HPACK integer is longer than any header block.");
    }

    private sealed record Duplex(PipeReader Input, PipeWriter Output) : IDuplexPipe;
}
