using System.Text.Json;
using System.Text.Json.Serialization;

namespace Tensormesh.Devices;

/// <summary>
/// One GPU. What the device or the driver does not support is null, which is no fault; what could not be read because the
/// device is lost is null as well, and then <see cref="Health"/> says so.
/// </summary>
public sealed record Device
{
    /// <summary>NVML's index, which is the order of PCI addresses. It may change when the driver is loaded again: no identity.</summary>
    public required int Index { get; init; }

    /// <summary>Null only when the device was lost before its identity was ever read.</summary>
    public DeviceUuid? Uuid { get; init; }

    /// <summary>The device that an earlier probe saw at this PCI address, when it was another.</summary>
    public DeviceUuid? Replaces { get; init; }

    public required DeviceHealth Health { get; init; }

    /// <summary>The product, such as <c>NVIDIA H100 80GB HBM3</c>.</summary>
    public string? Name { get; init; }

    /// <summary>Domain, bus, device and function, such as <c>00000000:3B:00.0</c>.</summary>
    public string? PciBusId { get; init; }

    public long? TotalMemoryBytes { get; init; }
    public long? FreeMemoryBytes { get; init; }
    public ComputeCapability? ComputeCapability { get; init; }
    public int? Multiprocessors { get; init; }

    public bool? MigEnabled { get; init; }

    /// <summary>Empty unless MIG is on.</summary>
    public IReadOnlyList<MigInstance> MigInstances { get; init; } = [];

    public bool? EccEnabled { get; init; }

    /// <summary>Since the driver was loaded.</summary>
    public long? CorrectedEccErrors { get; init; }

    /// <summary>Since the driver was loaded.</summary>
    public long? UncorrectedEccErrors { get; init; }

    /// <summary>Before Ampere. Newer devices remap rows instead.</summary>
    public RetiredPages? RetiredPages { get; init; }

    /// <summary>Since Ampere.</summary>
    public RowRemap? RowRemap { get; init; }

    public int? PowerMilliwatts { get; init; }
    public int? PowerLimitMilliwatts { get; init; }
    public int? TemperatureCelsius { get; init; }

    /// <summary>Share of the last sample period in which a kernel ran.</summary>
    public int? GpuUtilizationPercent { get; init; }

    /// <summary>Share of the last sample period in which memory was read or written.</summary>
    public int? MemoryUtilizationPercent { get; init; }

    /// <summary>Why clocks are below what was asked for; null when it is not known.</summary>
    public ThrottleReasons? Throttle { get; init; }

    /// <summary>Those that compute; null when it is not known.</summary>
    public IReadOnlyList<DeviceProcess>? Processes { get; init; }

    /// <summary>The newest XID errors that this probe heard of, oldest first; bounded, and forgotten with the probe.</summary>
    public IReadOnlyList<XidError> XidErrors { get; init; } = [];
}

/// <summary>As CUDA and NVML write it: <c>GPU-</c> and a lower-case UUID, or <c>MIG-</c> and one.</summary>
[JsonConverter(typeof(DeviceUuidConverter))]
public readonly record struct DeviceUuid(string Value)
{
    public override string ToString() => Value;
}

public readonly record struct ComputeCapability(int Major, int Minor)
{
    public override string ToString() => $"{Major}.{Minor}";
}

public sealed record MigInstance(int Index, DeviceUuid Uuid, string? Name, long? TotalMemoryBytes, long? FreeMemoryBytes);

/// <param name="Pending">Pages are to be retired when the driver is loaded next.</param>
public sealed record RetiredPages(int SingleBitErrors, int DoubleBitErrors, bool Pending);

/// <param name="Pending">Rows are to be remapped at the next reset.</param>
/// <param name="Failed">A row could not be remapped: the device is to be replaced.</param>
public sealed record RowRemap(int Corrected, int Uncorrected, bool Pending, bool Failed);

/// <param name="UsedMemoryBytes">Null when it is not known, as inside containers and with MIG.</param>
public sealed record DeviceProcess(int ProcessId, long? UsedMemoryBytes);

public sealed record XidError(int Code, DateTimeOffset SeenAt);

/// <summary>NVML's bits.</summary>
[Flags]
public enum ThrottleReasons
{
    None = 0,
    Idle = 0x1,
    ApplicationClocks = 0x2,
    SoftwarePowerCap = 0x4,
    HardwareSlowdown = 0x8,
    SyncBoost = 0x10,
    SoftwareThermal = 0x20,
    HardwareThermal = 0x40,
    HardwarePowerBrake = 0x80,
    DisplayClocks = 0x100,
}

internal sealed class DeviceUuidConverter : JsonConverter<DeviceUuid>
{
    public override DeviceUuid Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
        => new(reader.GetString() ?? throw new JsonException("a device's UUID is a string"));

    public override void Write(Utf8JsonWriter writer, DeviceUuid value, JsonSerializerOptions options)
        => writer.WriteStringValue(value.Value);
}
