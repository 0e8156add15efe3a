namespace Tensormesh.TestKit;

/// <summary>The configuration files of the real node's programs.</summary>
internal sealed class NodeConfiguration(string folder, string cgroup, NodeNetwork network, string authorityFile)
{
    public string ContainerdSocket => Path.Combine(folder, "containerd.sock");
    public string ContainerdFile => Path.Combine(folder, "containerd.toml");
    public string KubeletFile => Path.Combine(folder, "kubelet.yaml");
    public string ProxyFile => Path.Combine(folder, "kube-proxy.yaml");
    public string KubeletRoot => Path.Combine(folder, "kubelet");
    public string KubeletKubeconfig => Path.Combine(folder, "kubelet.conf");
    public string ProxyKubeconfig => Path.Combine(folder, "kube-proxy.conf");

    public void Write()
    {
        var plugins = Path.Combine(folder, "cni");
        Directory.CreateDirectory(plugins);
        File.WriteAllText(Path.Combine(plugins, "10-tensormesh.conflist"), Cni());
        File.WriteAllText(ContainerdFile, Containerd(plugins));
        File.WriteAllText(Path.Combine(folder, "resolv.conf"), "nameserver 10.96.0.10\n");
        File.WriteAllText(KubeletFile, Kubelet());
        File.WriteAllText(ProxyFile, Proxy());
    }

    // Root may lack CAP_SYS_RESOURCE, and runc dies where it cannot write the negative oom_score_adj that a kubelet asks for.
    private string Containerd(string plugins) =>
        $"""
        version = 2
        root = "{folder}/containerd"
        state = "/run/containerd"
        disabled_plugins = [
          "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
          "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
        ]
        [grpc]
          address = "{ContainerdSocket}"
        [plugins."io.containerd.grpc.v1.cri"]
          sandbox_image = "{ContainerImages.Pause}"
          restrict_oom_score_adj = true
          [plugins."io.containerd.grpc.v1.cri".cni]
            bin_dir = "/usr/lib/cni"
            conf_dir = "{plugins}"
          [plugins."io.containerd.grpc.v1.cri".containerd]
            snapshotter = "overlayfs"

        """;

    private string Cni() =>
        $$"""
        {
          "cniVersion": "0.4.0",
          "name": "tensormesh",
          "plugins": [
            {
              "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
              "ipam": {
                "type": "host-local", "dataDir": "{{folder}}/cni-addresses",
                "ranges": [[{ "subnet": "{{network.PodRange}}" }]], "routes": [{ "dst": "0.0.0.0/0" }]
              }
            },
            { "type": "portmap", "capabilities": { "portMappings": true } }
          ]
        }

        """;

    // Status every second, because the GPUs appear with a status. Images are never collected: there is nowhere to pull them from again.
    private string Kubelet() =>
        $"""
        apiVersion: kubelet.config.k8s.io/v1beta1
        kind: KubeletConfiguration
        address: {network.NodeAddress}
        port: 10250
        readOnlyPort: 0
        healthzPort: 0
        authentication:
          anonymous: {Braces("enabled: false")}
          webhook: {Braces("enabled: false")}
          x509: {Braces($"clientCAFile: {authorityFile}")}
        authorization: {Braces("mode: AlwaysAllow")}
        cgroupDriver: cgroupfs
        cgroupRoot: /{cgroup}
        enforceNodeAllocatable: []
        failSwapOn: false
        oomScoreAdj: 0
        nodeStatusUpdateFrequency: 1s
        nodeLeaseDurationSeconds: 10
        kubeAPIQPS: 200
        kubeAPIBurst: 400
        eventRecordQPS: 100
        eventBurst: 200
        serializeImagePulls: false
        imageGCHighThresholdPercent: 100
        evictionHard: {Braces("memory.available: 1Mi, nodefs.available: 1Mi, imagefs.available: 1Mi, nodefs.inodesFree: '10'")}
        maxPods: 200
        resolvConf: {folder}/resolv.conf
        clusterDomain: cluster.local
        clusterDNS: [10.96.0.10]

        """;

    private string Proxy() =>
        $"""
        apiVersion: kubeproxy.config.k8s.io/v1alpha1
        kind: KubeProxyConfiguration
        mode: iptables
        bindAddress: {network.NodeAddress}
        healthzBindAddress: 127.0.0.1:10256
        metricsBindAddress: 127.0.0.1:10249
        clusterCIDR: {network.PodRange}
        hostnameOverride: {RealNode.Name}
        clientConnection: {Braces($"kubeconfig: {ProxyKubeconfig}")}
        conntrack: {Braces("maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s")}
        iptables: {Braces("syncPeriod: 30s, minSyncPeriod: 0s")}

        """;

    private static string Braces(string content) => "{ " + content + " }";
}
