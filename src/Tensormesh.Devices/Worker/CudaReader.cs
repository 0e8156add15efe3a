using System.Globalization;
using System.Text;
using Tensormesh.Devices.Interop;

namespace Tensormesh.Devices.Worker;

/// <summary>Asks the CUDA driver API. It cannot be asked twice: what a process saw at its first <c>cuInit</c> is what it goes on seeing.</summary>
internal sealed unsafe class CudaReader(DriverLibrary library)
{
    private const int NameLength = 96;
    private const int MaxDevices = 64;

    public LibraryReading State { get; private set; } = new(LibraryState.Absent, 0, "");
    public string? Version { get; private set; }
    public IReadOnlyList<Device> Devices { get; private set; } = [];

    public void Read()
    {
        Devices = [];
        State = LibraryReading.Of(library, ReadDriver);
    }

    private LibraryReading ReadDriver()
    {
        int version, count = 0;
        Version = CudaImports.DriverGetVersion(&version) == CudaStatus.Success
            ? string.Create(CultureInfo.InvariantCulture, $"{version / 1000}.{version % 1000 / 10}")
            : null;
        var (call, status) = ("cuInit", CudaImports.Init(0));
        if (status == CudaStatus.Success) (call, status) = ("cuDeviceGetCount", CudaImports.DeviceGetCount(&count));
        if (status is not (CudaStatus.Success or CudaStatus.NoDevice))
        {
            return new LibraryReading(LibraryState.Failed, 0, $"{call}: {CudaStatus.Name(status, library)}");
        }

        count = status == CudaStatus.NoDevice ? 0 : Math.Min(count, MaxDevices);
        Devices = [.. Enumerable.Range(0, count).Select(ReadDevice).OfType<Device>()];
        return new LibraryReading(LibraryState.Answers, count, "");
    }

    /// <summary>Null for a device that is counted and cannot be had: NVML's word about it stands.</summary>
    private Device? ReadDevice(int ordinal)
    {
        int device, length = 16;
        if (CudaImports.DeviceGet(&device, ordinal) != CudaStatus.Success) return null;
        var uuid = stackalloc byte[length];
        var gotUuid = library.Has("cuDeviceGetUuid_v2") ? CudaImports.DeviceGetUuidV2(uuid, device) : CudaImports.DeviceGetUuidV1(uuid, device);
        if (gotUuid != CudaStatus.Success) return null;

        nuint memory;
        var text = stackalloc byte[NameLength];
        var name = CudaImports.DeviceGetName(text, NameLength, device) == CudaStatus.Success ? Text(text) : null;
        var busId = CudaImports.DeviceGetPciBusId(text, NameLength, device) == CudaStatus.Success ? Text(text) : null;
        return new Device
        {
            Index = ordinal,
            Uuid = new DeviceUuid("GPU-" + new Guid(new ReadOnlySpan<byte>(uuid, length), bigEndian: true).ToString("D")),
            Health = Unjudged.Health,
            Name = name,
            // CUDA writes a domain of four digits in lower case, NVML of eight in upper case.
            PciBusId = busId is null ? null : busId.ToUpperInvariant().PadLeft("00000000:00:00.0".Length, '0'),
            TotalMemoryBytes = CudaImports.DeviceTotalMemV2(&memory, device) == CudaStatus.Success ? (long)memory : null,
            ComputeCapability = Attribute(device, CudaImports.ComputeCapabilityMajor) is { } major
                && Attribute(device, CudaImports.ComputeCapabilityMinor) is { } minor ? new ComputeCapability(major, minor) : null,
            Multiprocessors = Attribute(device, CudaImports.MultiprocessorCount),
        };
    }

    private static int? Attribute(int device, int attribute)
    {
        int value;
        return CudaImports.DeviceGetAttribute(&value, attribute, device) == CudaStatus.Success ? value : null;
    }

    private static string Text(byte* text) => Encoding.UTF8.GetString(new ReadOnlySpan<byte>(text, NameLength).SliceAtNull());
}

internal static class Unjudged
{
    public static DeviceHealth Health { get; } = new(HealthVerdict.Unknown, HealthReason.None, "");

    public static ReadOnlySpan<byte> SliceAtNull(this ReadOnlySpan<byte> text)
        => text.IndexOf((byte)0) is var end and >= 0 ? text[..end] : text;
}
